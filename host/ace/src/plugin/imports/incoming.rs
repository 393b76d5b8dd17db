//! `incoming`: getters for the current request. A value is copied only when the guest asks for it.

use wasmtime::Result;
use wasmtime::component::Resource;

use crate::plugin::runtime::bindings::incoming::{Host, HostRequest};
use crate::plugin::runtime::state::{RequestHandle, State};

impl Host for State {
    fn public_url(&mut self) -> Result<Option<String>> {
        self.count_host_call()?;
        Ok(self.services.public_url.clone())
    }
}

impl HostRequest for State {
    fn method(&mut self, this: Resource<RequestHandle>) -> Result<String> {
        Ok(self.request(this.rep())?.method.clone())
    }

    fn url(&mut self, this: Resource<RequestHandle>) -> Result<Option<String>> {
        Ok(self.request(this.rep())?.url.clone())
    }

    fn path(&mut self, this: Resource<RequestHandle>) -> Result<String> {
        Ok(self.request(this.rep())?.path.clone())
    }

    fn query(&mut self, this: Resource<RequestHandle>) -> Result<Option<String>> {
        Ok(self.request(this.rep())?.query.clone())
    }

    fn header(&mut self, this: Resource<RequestHandle>, name: String) -> Result<Vec<String>> {
        let headers = &self.request(this.rep())?.headers;
        Ok(headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(&name)).map(|(_, v)| v.clone()).collect())
    }

    fn headers(&mut self, this: Resource<RequestHandle>) -> Result<Vec<(String, String)>> {
        Ok(self.request(this.rep())?.headers.clone())
    }

    fn body(&mut self, this: Resource<RequestHandle>) -> Result<Vec<u8>> {
        Ok(self.request(this.rep())?.body.clone())
    }

    fn received_at(&mut self, this: Resource<RequestHandle>) -> Result<u64> {
        Ok(self.request(this.rep())?.received_at.as_millisecond().max(0) as u64)
    }

    fn drop(&mut self, _: Resource<RequestHandle>) -> Result<()> {
        Ok(())
    }
}
