//! Operation: faults, shutdown, TLS and hostile files.

mod faults;
mod hostile;
mod interference;
mod shutdown;
mod tls;
