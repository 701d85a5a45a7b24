//! The Open Inference Protocol, version 2, as far as it is text and bytes: requests into inputs,
//! outputs into answers, and the pages around them, over HTTP and as messages of gRPC. No IO and no
//! clock; every length that a client states is checked against what came before anything is made
//! for it.
//!
//! The server's five input types are flat lists of numbers or texts of any length, so the protocol
//! sees each as one tensor: `input`, whose first dimension is the rows of a request, each row a
//! query. A model answers with a text: the tensor `output`, one element a row. Models of type
//! tensors have a signature; what they take and give is in `tensors` and `tensor_answer`.

mod answer;
mod bounded;
mod error;
mod form;
pub mod grpc;
mod inflate;
mod json_data;
mod number;
mod pages;
mod request;
mod shape;
mod signature;
mod split;
mod tensor;
mod tensor_answer;
mod tensors;
mod wire;

pub use answer::{Answer, Defaults, NumberFault, OutputFault, Parts, text_bytes};
pub use bounded::{OUTPUTS_MAX, RANK_MAX, TENSORS_MAX};
pub use clipper_domain::Datatype;
pub use error::{Class, Fault, InferError};
pub use form::{As, OutputForm, TensorForm, WantedOutput};
pub use inflate::{Encoding, InflateError, inflate};
pub use pages::{
    Config, EXTENSIONS, IndexRequest, IndexRow, InferenceStats, Metadata, Named, Spent, Statistics,
};
pub use request::{Infer, parse};
pub use signature::{INPUT, OUTPUT, TensorInfo};
pub use tensor_answer::{TensorAnswer, TensorParts};
pub use tensors::parse_tensors;
