//! stub
#![allow(missing_docs)]
use crate::{
    logging::AccessWriter,
    metrics::Catalogue,
    net::address::Endpoint,
    snapshot::{Published, Snapshot},
    task::Tasks,
    units::Name,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
#[derive(Debug)]
pub struct View {
    p: Arc<Published>,
    c: Arc<Catalogue>,
    a: AccessWriter,
    e: Mutex<BTreeMap<Name, Vec<Endpoint>>>,
}
impl View {
    pub fn new(p: Arc<Published>, c: Arc<Catalogue>, a: AccessWriter) -> Self {
        Self { p, c, a, e: Mutex::default() }
    }
    pub fn access(&self) -> &AccessWriter {
        &self.a
    }
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.c
    }
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.p.load_full()
    }
    pub fn endpoints(&self) -> BTreeMap<Name, Vec<Endpoint>> {
        self.e.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
    pub fn set_endpoints(&self, e: BTreeMap<Name, Vec<Endpoint>>) {
        *self.e.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = e;
    }
    pub fn set_draining(&self) {}
    pub fn note_reload(&self, _: bool, _: &str) {}
}
pub fn serve(_: tokio::net::TcpListener, _: Arc<View>, _: &Tasks) {}
