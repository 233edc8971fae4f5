//! HTTP clients.

/// Begins a client. Its TLS needs the provider of cryptography that the program has.
pub fn builder() -> reqwest::ClientBuilder {
    install_provider();
    reqwest::Client::builder()
}

/// A client with the default settings.
pub fn client() -> reqwest::Client {
    builder().build().unwrap()
}

/// Installs the provider, unless it is installed already.
pub fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
