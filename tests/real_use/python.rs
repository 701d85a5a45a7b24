//! Python models and clients.
