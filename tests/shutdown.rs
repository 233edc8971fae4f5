//! Stopping loses no answer.

use dinoserve::http::HttpConfig;

use crate::support::{
    focus,
    server::{Server, floats},
};

#[tokio::test]
async fn accepted_requests_are_answered_when_the_server_stops() {
    let mut server = Server::start(focus().clone(), HttpConfig::default()).await;
    let requests: Vec<_> =
        (0..6).map(|_| tokio::spawn(server.post_file("/v1/embed", "dinov2-small-focus/chelsea.png").send())).collect();
    // All are in the queue or beyond when the stop comes.
    tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    server.stop();
    for request in requests {
        let response = request.await.unwrap().expect("an answer");
        assert_eq!(response.status(), 200);
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(floats(&body["data"][0]["embedding"]).len(), 384);
    }
    let address = server.address;
    server.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
