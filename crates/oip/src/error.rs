//! Why a request is refused: which field, and what is wrong with it.

use clipper_domain::printable::is_deceptive;

use clipper_domain::Datatype;

/// What a refusal is to its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request is wrong.
    Invalid,
    /// It asks for more rows than one request may have.
    TooLarge,
    /// It is right, and asks for something that is not there.
    Unsupported,
}

/// A request that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {fault}")]
pub struct InferError {
    /// Where it is wrong, such as `inputs[0].shape`; or the name of a header.
    pub field: String,
    pub fault: Fault,
}

impl InferError {
    /// `fault` in `field`.
    #[must_use]
    pub fn new(field: impl Into<String>, fault: Fault) -> Self {
        Self { field: field.into(), fault }
    }

    /// What it is to its sender.
    #[must_use]
    pub fn class(&self) -> Class {
        match self.fault {
            Fault::TooManyRows { .. } => Class::TooLarge,
            Fault::Unsupported => Class::Unsupported,
            _ => Class::Invalid,
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not what the parser expected, in the parser's words.
    #[error("{0}")]
    Json(String),
    /// It has to be there.
    #[error("it is missing")]
    Missing,
    /// A header that is not a number of bytes.
    #[error("'{0}' is not a number of bytes")]
    NotANumber(String),
    /// It states more bytes than there are.
    #[error("it says {said} bytes, but there are {found}")]
    Longer { said: u64, found: usize },
    /// It states another number of bytes than its shape needs.
    #[error("it says {said} bytes, but the shape and the datatype need {needed}")]
    NotAsNeeded { said: u64, needed: usize },
    /// The elements and a binary size, or neither.
    #[error("give either data or parameters.binary_data_size")]
    EitherOr,
    /// Bytes behind the last tensor.
    #[error("the body has {0} bytes more than its tensors")]
    Left(usize),
    /// No tensor of that name.
    #[error("there is no tensor '{found}' here, only '{wanted}'")]
    UnknownTensor { found: String, wanted: &'static str },
    /// No tensor of that name in the model's signature.
    #[error("there is no tensor '{found}' here, only {wanted}")]
    NotAmong { found: String, wanted: String },
    /// A tensor of the model that the request does not have.
    #[error("the tensor '{0}' is missing")]
    MissingTensor(String),
    /// Another datatype than the model's.
    #[error("{found} is not the tensor's datatype, which is {wanted}")]
    OtherDatatype { found: String, wanted: &'static str },
    /// Another shape than the model's, in which -1 is any number.
    #[error("[{found}] does not fit the tensor's shape, which is [{wanted}]")]
    OtherShape { found: String, wanted: String },
    /// Tensors of one request with different numbers of rows.
    #[error("{found} rows, but the first tensor has {wanted}")]
    OtherRows { found: usize, wanted: usize },
    /// Elements in JSON that are none of the tensor.
    #[error(transparent)]
    Tensor(clipper_tensors::Fault),
    /// A whole body for a model of several inputs.
    #[error("the model has several inputs ({0}): a request without JSON has but one")]
    RawOfSeveral(String),
    /// A whole body that is no row.
    #[error("{found} bytes are no row of the tensor, whose shape is [{wanted}]")]
    RawShape { found: usize, wanted: String },
    /// The same tensor twice.
    #[error("the tensor is there twice")]
    Twice,
    /// Not one of the protocol's datatypes.
    #[error("'{0}' is not a datatype")]
    UnknownDatatype(String),
    /// A datatype that cannot give the input.
    #[error("{found} cannot give inputs of type {wanted}, which are {datatype}")]
    Datatype { found: &'static str, wanted: &'static str, datatype: &'static str },
    /// A datatype that JSON has no form for.
    #[error("{} has no form in JSON: send it as binary data", .0.name())]
    BinaryOnly(Datatype),
    /// A shape without the dimension of rows.
    #[error("numbers need two dimensions or more, [rows, elements of a row, ...]")]
    NoRows,
    /// Texts whose rows have more than one element.
    #[error("each row is one text: [rows] or [rows, 1]")]
    NotOneText,
    /// A dimension of 0.
    #[error("a dimension is 0")]
    Empty,
    /// A product that no body can hold.
    #[error("it has more elements than any request can carry")]
    Overflow,
    /// More rows than one request may have.
    #[error("{rows} rows, more than serving.request_inputs_max = {max}")]
    TooManyRows { rows: u64, max: usize },
    /// Another number of elements than the shape says.
    #[error("the shape says {said} elements, but there are {found}")]
    Elements { said: usize, found: usize },
    /// More elements than the shape says.
    #[error("the shape says {0} elements, but there are more")]
    MoreElements(usize),
    /// Arrays that are nested otherwise than the shape says.
    #[error("the arrays are neither flat nor nested as the shape says (element {0})")]
    Nesting(usize),
    /// An element that is not what its datatype is.
    #[error("element {at} is not of datatype {}", .datatype.name())]
    Element {
        /// Which, counted from 0.
        at: usize,
        /// What it should be.
        datatype: Datatype,
    },
    /// An element that the model's type cannot hold.
    #[error("element {at} is outside of what inputs of type {input_type} can hold exactly")]
    OutOfRange {
        /// Which, counted from 0.
        at: usize,
        input_type: &'static str,
    },
    /// A text with a length of its own that ends early.
    #[error("element {at} says {said} bytes, but {found} are left")]
    ShortText {
        /// Which, counted from 0.
        at: usize,
        said: u64,
        found: usize,
    },
    /// Not UTF-8, where texts are asked for.
    #[error("element {0} is not UTF-8 text")]
    NotUtf8(usize),
    /// Nothing in it, where something has to be.
    #[error("element {0} is empty")]
    EmptyElement(usize),
    /// Bytes that are no message.
    #[error("it is not a message of protobuf")]
    NotProtobuf,
    /// More than a request may name.
    #[error("there are more than {0}")]
    TooMany(usize),
    #[error("dimension {at} is {found}")]
    Negative { at: usize, found: i64 },
    /// The elements of a tensor twice, or not at all.
    #[error("give each tensor either contents or a part of raw_input_contents")]
    ContentsOrRaw,
    /// Raw data for another number of tensors.
    #[error("it has {found} parts for {tensors} inputs")]
    RawParts { found: usize, tensors: usize },
    /// Raw data of another length than the shape needs.
    #[error("it has {found} bytes, but the shape and the datatype need {needed}")]
    RawLength { found: usize, needed: usize },
    /// Elements in a list that is not for them.
    #[error("elements of datatype {} belong into {wanted}", .datatype.name())]
    Contents { datatype: Datatype, wanted: &'static str },
    /// A parameter of another type.
    #[error("it is not {0}")]
    Parameter(&'static str),
    /// A part of the protocol that this server does not have.
    #[error("it is not supported here")]
    Unsupported,
}

/// Longest piece of a request that an error repeats, characters.
const SHOWN_MAX_CHARS: usize = 120;

/// Text of a request, fit to be repeated: bounded, and without what could deceive.
pub(crate) fn shown(text: &str) -> String {
    let clean = |c: char| if is_deceptive(c) { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(SHOWN_MAX_CHARS).map(clean).collect();
    if text.chars().nth(SHOWN_MAX_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}
