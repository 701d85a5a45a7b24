//! Redis that changes its role, evicts, is shared with others.
