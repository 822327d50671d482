//! Chapter: hostile peers.
