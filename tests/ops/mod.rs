//! Operation: faults, shutdown, TLS and hostile files.

mod decoding_memory;
mod faults;
mod hostile;
mod interference;
mod shutdown;
mod tls;
