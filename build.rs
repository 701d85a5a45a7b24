//! Link options of the binary.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Generic code leaves many identical functions; folding them makes the binary smaller. Only where
    // rustc brings its own lld: other linkers do not know the option.
    let target = std::env::var("TARGET").unwrap_or_default();
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if target == "x86_64-unknown-linux-gnu" && release {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
}
