//! What the program is built from: its commit, and the plugins and templates it contains.

#[path = "build/about.rs"]
mod about;
#[path = "build/shipped.rs"]
mod shipped;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    about::main();
    shipped::main();
}
