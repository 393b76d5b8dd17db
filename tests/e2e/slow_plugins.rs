//! Plugins that take long to load: they do not delay anything, and start with the settings at the time when they are activated.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ace::internals::plugin::PluginState;
use ace::watch::Watch;
use ace::{Ace, Config};
use jiff::Timestamp;
use serde_json::json;

use crate::panics::{clocked, install};
use crate::support::{Home, wait_for};

/// Calls for the time block while the clock is held.
struct Clock {
    is_held: bool,
    asked: u32,
}

static CLOCK: Mutex<Clock> = Mutex::new(Clock { is_held: false, asked: 0 });
static RELEASED: Condvar = Condvar::new();

fn clock() -> MutexGuard<'static, Clock> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let mut clock = clock();
    clock.asked += 1;
    while clock.is_held {
        clock = RELEASED.wait(clock).unwrap_or_else(PoisonError::into_inner);
    }
    Timestamp::now()
}

/// Time for which the clock is held does not count for the guest.
const LIMITS: &str = "[limits]\ntime = '1m'\npolicy-call-timeout = '1m'\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plugin_starts_with_the_settings_at_its_activation() {
    let home = Home::empty();
    home.config(LIMITS);
    let config = Config::load(&home.path("ace.toml")).expect("a valid configuration");
    let ace = Arc::new(Ace::builder(config).clock(now, || 0.5).start().await.expect("it starts"));
    let watching = tokio::spawn(Watch::start(ace.clone()).run());
    let is_active = |plugin: &str| ace.registry().plugins.get(plugin).is_some_and(|p| p.state == PluginState::Active);

    let asked = clock().asked;
    clock().is_held = true;
    install(&home, "slow", &clocked(), "one");
    tokio::task::block_in_place(|| {
        wait_for("it to be asked whether it can work", || (clock().asked > asked).then_some(()));
        // Meanwhile it is named in ace.toml, and another plugin is added.
        home.config(&format!(
            "{LIMITS}[plugins.slow]\nmode = 'shadow'\nconfig = {{ wanted = true }}\ngrants = {{ keyvalue = ['facts'] }}\n\
             [plugins.quick]\norder = 7\n"
        ));
        install(&home, "quick", include_str!("hostile/policy.wat"), "one");
        wait_for("the other plugin", || is_active("quick").then_some(()));
        assert!(ace.registry().loading.contains("slow") && !is_active("slow"));
        clock().is_held = false;
        RELEASED.notify_all();
        wait_for("the slow one", || {
            assert!(!ace.enforced_policies().contains("slow"), "it is never obeyed");
            is_active("slow").then_some(())
        });
    });
    assert!(!ace.enforced_policies().contains("slow"), "it is in shadow");
    let plugin = ace.registry().plugins["slow"].clone();
    assert_eq!(plugin.view().granted, ["keyvalue:facts:read-write"]);
    let runtime = plugin.runtime.as_ref().expect("it serves");
    assert_eq!(json!(runtime.settings.config), json!({"wanted": true}), "it was started with them, too");
    watching.abort();
}
