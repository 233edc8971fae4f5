//! Operation: faults, shutdown, TLS and hostile files.

mod faults;
mod hostile;
mod shutdown;
mod tls;
