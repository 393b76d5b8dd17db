//! `wasi:io/poll` with the guest's clock stopped, because waiting for a timer or a response is not computing time.

use wasmtime::component::Resource;
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::io::poll::{Host, HostPollable};

use crate::plugin::runtime::state::State;

impl Host for State {
    async fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.count_host_call()?;
        self.outside(async |state| Host::poll(state.ctx().table, pollables).await).await
    }
}

impl HostPollable for State {
    async fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        HostPollable::ready(self.ctx().table, pollable).await
    }

    async fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.count_host_call()?;
        self.outside(async |state| HostPollable::block(state.ctx().table, pollable).await).await
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        HostPollable::drop(self.ctx().table, pollable)
    }
}
