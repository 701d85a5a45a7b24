//! ONNX models answer what their reference engine answers.
