//! Containers and strangers on the RPC port that take more than their share.
