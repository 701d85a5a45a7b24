//! `grpc.reflection.v1` and `v1alpha`, whose messages are the same: what is served, for tools that
//! have no `.proto` files. Pure.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;

use crate::status::Code;

/// The names under which clients look for it.
pub const SERVICES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// The files of this crate's services, as `protoc --descriptor_set_out` writes them.
pub const DESCRIPTORS: &[u8] = include_bytes!("../proto/descriptors.bin");

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServerReflectionRequest {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(oneof = "Question", tags = "3, 4, 5, 6, 7")]
    pub message_request: Option<Question>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Question {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(message, tag = "5")]
    FileContainingExtension(ExtensionRequest),
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExtensionRequest {
    #[prost(string, tag = "1")]
    pub containing_type: String,
    #[prost(int32, tag = "2")]
    pub extension_number: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServerReflectionResponse {
    #[prost(string, tag = "1")]
    pub valid_host: String,
    #[prost(message, optional, tag = "2")]
    pub original_request: Option<ServerReflectionRequest>,
    #[prost(oneof = "Found", tags = "4, 6, 7")]
    pub message_response: Option<Found>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Found {
    #[prost(message, tag = "4")]
    Files(FileDescriptorResponse),
    #[prost(message, tag = "6")]
    Services(ListServiceResponse),
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FileDescriptorResponse {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub file_descriptor_proto: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListServiceResponse {
    #[prost(message, repeated, tag = "1")]
    pub service: Vec<ServiceResponse>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ServiceResponse {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ErrorResponse {
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

/// The files of a descriptor set, as they are.
#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    file: Vec<Bytes>,
}

/// The names in a file.
#[derive(Clone, PartialEq, prost::Message)]
struct FilePart {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(string, repeated, tag = "3")]
    dependency: Vec<String>,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Type>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<NamedPart>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServicePart>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Type {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Type>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<NamedPart>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServicePart {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<NamedPart>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamedPart {
    #[prost(string, tag = "1")]
    name: String,
}

/// What there is to be found.
#[derive(Debug, Default)]
pub struct Reflection {
    /// By their names, with those that they import.
    files: HashMap<String, (Bytes, Vec<String>)>,
    /// Full names of everything, and the files they are in.
    symbols: HashMap<String, String>,
    services: Vec<String>,
    /// `/package.Service/Method`
    methods: Vec<String>,
}

impl Reflection {
    /// Of these descriptor sets; what cannot be read of them is not found.
    #[must_use]
    pub fn new(sets: &[&'static [u8]]) -> Self {
        let mut found = Self::default();
        for set in sets {
            let files = FileSet::decode(Bytes::from_static(set)).unwrap_or_default().file;
            for text in files {
                if let Ok(file) = FilePart::decode(text.clone()) {
                    found.add(file, text);
                }
            }
        }
        found.services.sort();
        found
    }

    fn add(&mut self, file: FilePart, text: Bytes) {
        let FilePart { name, package, dependency, messages, enums, service } = file;
        let full = |inner: &str| format!("{package}.{inner}");
        let mut symbols: Vec<String> = enums.iter().map(|named| full(&named.name)).collect();
        for ServicePart { name, method } in &service {
            let service = full(name);
            symbols.extend(method.iter().map(|method| format!("{service}.{}", method.name)));
            let paths = method.iter().map(|method| format!("/{service}/{}", method.name));
            self.methods.extend(paths);
            symbols.push(service.clone());
            self.services.push(service);
        }
        let mut types: Vec<(String, Type)> =
            messages.into_iter().map(|of| (full(&of.name), of)).collect();
        while let Some((path, of)) = types.pop() {
            symbols.extend(of.enums.iter().map(|named| format!("{path}.{}", named.name)));
            let inner = of.nested.into_iter().map(|of| (format!("{path}.{}", of.name), of));
            types.extend(inner);
            symbols.push(path);
        }
        self.symbols.extend(symbols.into_iter().map(|symbol| (symbol, name.clone())));
        self.files.insert(name, (text, dependency));
    }

    /// The paths of all methods.
    pub fn methods(&self) -> impl Iterator<Item = String> + '_ {
        self.methods.iter().cloned()
    }

    /// The answer to a question.
    #[must_use]
    pub fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let found = match &request.message_request {
            Some(Question::ListServices(_)) => {
                let named = |name: &String| ServiceResponse { name: name.clone() };
                let service = self.services.iter().map(named).collect();
                Found::Services(ListServiceResponse { service })
            }
            Some(Question::FileByFilename(name)) => self.with_imports(name),
            Some(Question::FileContainingSymbol(symbol)) => match self.symbols.get(symbol) {
                Some(file) => self.with_imports(file),
                None => error(Code::NotFound, "there is no such symbol"),
            },
            Some(Question::FileContainingExtension(_) | Question::AllExtensionNumbersOfType(_)) => {
                error(Code::NotFound, "nothing here is extended")
            }
            None => error(Code::InvalidArgument, "nothing is asked"),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(found),
        }
    }

    /// The file, and those that it needs.
    fn with_imports(&self, name: &str) -> Found {
        let mut names = vec![name];
        let mut files = Vec::new();
        let mut at = 0;
        while let Some(name) = names.get(at) {
            let Some((text, imports)) = self.files.get(*name) else {
                return error(Code::NotFound, "there is no such file");
            };
            files.push(text.clone());
            for import in imports {
                if !names.contains(&import.as_str()) {
                    names.push(import);
                }
            }
            at += 1;
        }
        Found::Files(FileDescriptorResponse { file_descriptor_proto: files })
    }
}

fn error(code: Code, message: &str) -> Found {
    let (error_code, error_message) = (code as i32, message.to_owned());
    Found::Error(ErrorResponse { error_code, error_message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(question: Question) -> Found {
        let reflection = Reflection::new(&[DESCRIPTORS]);
        let request =
            ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        reflection.answer(request).message_response.unwrap()
    }

    #[test]
    fn services_and_symbols_are_found() {
        let Found::Services(list) = ask(Question::ListServices(String::new())) else {
            panic!("a list")
        };
        let names: Vec<&str> = list.service.iter().map(|service| &*service.name).collect();
        assert_eq!(names, ["grpc.health.v1.Health", SERVICES[0], SERVICES[1]]);
        for symbol in [
            SERVICES[0],
            "grpc.health.v1.Health.Watch",
            "grpc.health.v1.HealthCheckResponse.ServingStatus",
            "grpc.reflection.v1alpha.ErrorResponse",
        ] {
            let found = ask(Question::FileContainingSymbol(symbol.to_owned()));
            assert!(matches!(found, Found::Files(files) if files.file_descriptor_proto.len() == 1));
        }
        for question in [
            Question::FileContainingSymbol("inference.Nothing".to_owned()),
            Question::FileByFilename("x.proto".to_owned()),
            Question::AllExtensionNumbersOfType("x".to_owned()),
        ] {
            assert!(matches!(ask(question), Found::Error(ErrorResponse { error_code: 5, .. })));
        }
    }
}
