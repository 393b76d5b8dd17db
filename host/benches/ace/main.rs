//! `make bench`: what a message costs, against references in the same run. Prints a table and writes
//! target/bench/summary.json (figure name -> value, unit, reference). Later figures join the list in `main`; words after
//! `--` on the command line of `cargo bench` choose from it.

mod measure;
mod place;
mod plugins;
mod providers;
mod sending;
mod service;
mod stages;

use measure::Summary;
use place::Place;

/// The same allocator as the program, so that the figures are the program's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What measures one topic.
type Topic = fn(&Place, &mut Summary);

const TOPICS: [(&str, Topic); 11] = [
    ("stages", stages::stages),
    ("calls", plugins::calls::calls),
    ("isolation", plugins::isolation::isolation),
    ("cores", plugins::calls::cores),
    ("settings", plugins::settings::settings),
    ("start", plugins::start::start),
    ("reload", plugins::reload::reload),
    ("many", sending::many_messages),
    ("peers", sending::peers),
    ("service", service::service),
    ("providers", providers::providers),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == service::onecore::FLAG) {
        return service::onecore::run(&arguments);
    }
    let wanted: Vec<String> = arguments.into_iter().filter(|word| !word.starts_with('-')).collect();
    let place = Place::prepare();
    let mut summary = Summary::open(&place.target.join("bench/summary.json"), wanted.is_empty());
    for (name, topic) in TOPICS {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            topic(&place, &mut summary);
        }
    }
    summary.write();
}
