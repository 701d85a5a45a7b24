//! What real use has broken, each as the right value; a test is named by its kind of fault.

mod config;
mod dispatch;
mod draining;
#[cfg(feature = "onnx")]
mod engine;
mod http;
mod large;
mod logs;
mod metadata;
mod neighbours;
mod printed;
mod processes;
mod python;
mod redis;
mod rpc;
mod signals;
mod store;
mod strangers;
