//! What is counted of the certificate.

use std::sync::atomic::AtomicU64;

/// Of the certificate that the ports with TLS share.
#[derive(Debug, Default)]
pub struct TlsMetrics {
    /// When it expires, Unix seconds.
    pub expires: AtomicU64,
    /// Changes of its files that are in use now or were.
    pub loaded: AtomicU64,
    /// Changes of its files that could not be used.
    pub failed: AtomicU64,
}
