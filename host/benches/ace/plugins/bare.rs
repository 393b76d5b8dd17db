//! A policy called by wasmtime alone: what the registry's bounds, grants, circuits and metrics are measured against. The
//! engine is the host's own, so that the async calls, the epochs and the pool are the same; so is the message resource.

use std::sync::Arc;

use ace::message::Message;
use wasmtime::component::{Component, HasSelf, Linker, Resource};
use wasmtime::{Engine, Result, Store};

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package host:bench;
        world measured {
            import openedx:ace/common@1.1.0;
            import openedx:ace/messages@1.1.0;
            import openedx:ace/config@1.1.0;
            import openedx:ace/logging@1.1.0;
            export openedx:ace/policy@1.1.0;
        }
    ",
    imports: { default: trappable },
    exports: { default: async },
    with: { "openedx:ace/messages.message": MessageHandle },
});

use openedx::ace::common::Recipient;
use openedx::ace::{common, config, logging, messages};

pub struct MessageHandle;

/// What one instance's store holds.
pub struct State {
    message: Option<Arc<Message>>,
}

/// A component that is linked.
pub struct Bare {
    engine: Engine,
    pre: MeasuredPre<State>,
}

/// One instance.
pub struct Instance {
    store: Store<State>,
    bare: self::exports::openedx::ace::policy::Guest,
    calls: u32,
}

impl Bare {
    pub fn new(engine: &Engine, wasm: &[u8]) -> Self {
        let component = Component::from_binary(engine, wasm).expect("it compiles");
        let mut linker = Linker::<State>::new(engine);
        common::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s).expect("linked");
        messages::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s).expect("linked");
        config::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s).expect("linked");
        logging::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s).expect("linked");
        let pre = linker.instantiate_pre(&component).and_then(MeasuredPre::new).expect("it fits");
        Bare { engine: engine.clone(), pre }
    }

    pub async fn instantiate(&self) -> Instance {
        let mut store = Store::new(&self.engine, State { message: None });
        store.epoch_deadline_async_yield_and_update(1);
        // Refused where the engine counts none.
        let _ = store.set_fuel(u64::MAX);
        let bare = self.pre.instantiate_async(&mut store).await.expect("an instance");
        Instance { bare: bare.openedx_ace_policy().clone(), store, calls: 0 }
    }
}

impl Instance {
    pub async fn check(&mut self, message: &Arc<Message>) {
        self.calls += 1;
        self.store.data_mut().message = Some(message.clone());
        self.store.set_epoch_deadline(1);
        let handle = Resource::new_own(self.calls);
        let verdict = self.bare.call_check(&mut self.store, handle).await.expect("no trap").expect("a verdict");
        std::hint::black_box(verdict);
        self.store.data_mut().message = None;
    }
}

impl common::Host for State {}
impl messages::Host for State {}

impl config::Host for State {
    fn get(&mut self, _: String) -> Result<Option<String>> {
        Ok(None)
    }
}

impl logging::Host for State {
    fn log(&mut self, _: logging::Level, _: String) -> Result<()> {
        Ok(())
    }
}

/// A getter that the measured policy does not call.
fn unused<T>() -> Result<T> {
    wasmtime::bail!("the bare host serves the context alone")
}

impl messages::HostMessage for State {
    fn context(&mut self, _: Resource<MessageHandle>, pointer: String) -> Result<Option<String>> {
        let message = self.message.as_ref().expect("a call");
        Ok(message.context.get(pointer.trim_start_matches('/')).map(|value| value.to_string()))
    }

    fn to_json(&mut self, _: Resource<MessageHandle>) -> Result<String> {
        Ok(self.message.as_ref().expect("a call").to_json())
    }

    fn drop(&mut self, _: Resource<MessageHandle>) -> Result<()> {
        Ok(())
    }

    fn uuid(&mut self, _: Resource<MessageHandle>) -> Result<String> {
        unused()
    }

    fn send_uuid(&mut self, _: Resource<MessageHandle>) -> Result<Option<String>> {
        unused()
    }

    fn app_label(&mut self, _: Resource<MessageHandle>) -> Result<String> {
        unused()
    }

    fn name(&mut self, _: Resource<MessageHandle>) -> Result<String> {
        unused()
    }

    fn unique_name(&mut self, _: Resource<MessageHandle>) -> Result<String> {
        unused()
    }

    fn language(&mut self, _: Resource<MessageHandle>) -> Result<Option<String>> {
        unused()
    }

    fn expiration_time(&mut self, _: Resource<MessageHandle>) -> Result<Option<u64>> {
        unused()
    }

    fn recipient(&mut self, _: Resource<MessageHandle>) -> Result<Option<Recipient>> {
        unused()
    }

    fn headers(&mut self, _: Resource<MessageHandle>) -> Result<Vec<(String, String)>> {
        unused()
    }

    fn options(&mut self, _: Resource<MessageHandle>, _: String) -> Result<Option<String>> {
        unused()
    }
}
