//! Connections and bodies that take more than their share.
