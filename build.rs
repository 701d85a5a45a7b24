//! Link options of the binary.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Only where rustc brings its own lld: other linkers do not know these options.
    if target != "x86_64-unknown-linux-gnu" || !release {
        return;
    }
    // Generic code leaves many identical functions behind.
    println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    // Relocations of a position-independent program, packed: 1.7 MB less. Since glibc 2.36.
    if glibc_minor().is_some_and(|minor| minor >= 36) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The `N` of this machine's glibc 2.N; none where it cannot be told.
fn glibc_minor() -> Option<u32> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.trim().strip_prefix("glibc 2.")?.split('.').next()?.parse().ok()
}
