//! The `portreeve` program.

fn main() {}
