//! The protocol over gRPC, as `proto/grpc_service.proto` and `proto/model_config.proto` have it.
//!
//! All messages but one are read and written by `prost`. The request for an inference is the one
//! that strangers make large: it is read here, borrowed from its bytes, so that a message takes no
//! more memory than itself, whatever it says.

mod answer;
mod contents;
mod messages;
mod request;
mod tensor_answer;
mod wire;

pub use messages::*;
pub use request::Request;

/// The service's name.
pub const SERVICE: &str = "inference.GRPCInferenceService";

/// The files of the service, as `protoc --descriptor_set_out` writes them.
pub const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");
