//! A stream of NATS JetStream, read by a durable pull consumer, which several processes can share.

use std::{collections::VecDeque, path::Path, time::Duration};

use async_nats::{
    Client, ConnectOptions, HeaderMap,
    jetstream::{
        self, AckKind, Context, Message,
        consumer::{AckPolicy, PullConsumer, pull},
        context::ConsumerInfoErrorKind,
        message::Acker,
    },
};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{address::StreamAddress, message};
use crate::error::{Error, Kind, Result};

/// Time for which a request for messages waits, if there are none.
const WAIT: Duration = Duration::from_secs(1);
/// Time after which the server gives a message that is neither acknowledged nor in progress to
/// another consumer. For consumers that are created here.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// Longest time for which a message waits that could not be handled this time.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Time for the last acknowledgments to reach the server.
const FLUSH: Duration = Duration::from_secs(10);

/// A stream, and what happens to messages that cannot be stored.
pub(super) struct Queue {
    client: Client,
    context: Context,
    consumer: PullConsumer,
    /// Subject to which rejected messages go.
    rejected: Option<String>,
}

/// How the servers are reached.
pub(super) struct Access<'a> {
    /// A `.creds` file.
    pub(super) credentials: Option<&'a Path>,
    /// Certificates of an authority, as PEM.
    pub(super) certificates: Option<&'a Path>,
}

/// A message, which the server keeps for this process as long as this value lives.
pub(super) struct Held {
    message: Message,
    /// Tells the server from time to time that the message is in progress.
    _progress: AbortOnDropHandle<()>,
}

impl Queue {
    /// Connects to the servers, and creates the consumer `consumer` unless the address names one.
    pub(super) async fn open(
        address: &StreamAddress,
        access: &Access<'_>,
        consumer: &str,
        rejected: Option<String>,
    ) -> Result<Self> {
        let client = connect(address, access).await?;
        let context = jetstream::new(client.clone());
        let name = address.consumer.as_deref().unwrap_or(consumer);
        let failed = |error: &dyn std::fmt::Display| {
            let detail = format!("the stream {address}: {error}");
            Error::new(Kind::InvalidOption, detail)
        };
        let stream = context.get_stream(&address.stream).await;
        let stream = stream.map_err(|error| failed(&error))?;
        let wanted = pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(name, wanted).await;
        let consumer: PullConsumer =
            consumer.map_err(|error| failed(&format_args!("the consumer {name}: {error}")))?;
        if consumer.cached_info().config.ack_policy != AckPolicy::Explicit {
            return Err(failed(&format_args!(
                "the consumer {name} does not wait for acknowledgments; create it with the policy \
                 `explicit`"
            )));
        }
        Ok(Self {
            client,
            context,
            consumer,
            rejected,
        })
    }

    /// Returns the messages, up to `ahead` of which are requested at a time. The stream ends when
    /// all messages have been stored if `until_empty`, else never; an interrupted connection is
    /// waited for.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if the consumer was deleted.
    pub(super) fn messages(
        &self,
        ahead: usize,
        until_empty: bool,
    ) -> impl Stream<Item = Result<Held>> {
        let reader = Reader {
            queue: self,
            ahead,
            until_empty,
            fetched: VecDeque::new(),
            waits: false,
        };
        stream::try_unfold(reader, async |mut reader| {
            Ok(reader.next().await?.map(|held| (held, reader)))
        })
    }

    /// Hands over a message that can never be stored: it goes to the subject of rejected messages,
    /// if there is one, and is not delivered again.
    pub(super) async fn reject(&self, held: Held, error: &Error) -> Result<()> {
        if let Some(subject) = &self.rejected {
            let mut headers = HeaderMap::new();
            let old = held.message.headers.iter().flat_map(HeaderMap::iter);
            for (name, values) in old {
                let is_of_publisher = !AsRef::<str>::as_ref(name).starts_with("Nats-Expected-");
                for value in values.iter().filter(|_| is_of_publisher) {
                    headers.append(name.clone(), value.clone());
                }
            }
            headers.insert(message::ERROR, error.to_string().replace(['\r', '\n'], " "));
            let payload = held.message.payload.clone();
            let sent = self
                .context
                .publish_with_headers(subject.clone(), headers, payload)
                .await;
            let stored = match sent {
                Ok(stored) => stored.await,
                Err(error) => Err(error),
            };
            stored.map_err(|error| {
                let detail = format!("no stream takes rejected messages from {subject}: {error}");
                Error::new(Kind::InvalidOption, detail)
            })?;
        }
        held.answer(AckKind::Term).await;
        Ok(())
    }

    /// Waits until the last acknowledgments have reached the server.
    pub(super) async fn close(self) {
        if !matches!(timeout(FLUSH, self.client.flush()).await, Ok(Ok(()))) {
            tracing::warn!(
                "the last acknowledgments may not have reached NATS; it will deliver their \
                 messages again, which changes nothing"
            );
        }
    }
}

/// Requests messages.
struct Reader<'a> {
    queue: &'a Queue,
    ahead: usize,
    until_empty: bool,
    fetched: VecDeque<Held>,
    /// Whether the next request waits for a message, because there was none.
    waits: bool,
}

impl Reader<'_> {
    async fn next(&mut self) -> Result<Option<Held>> {
        loop {
            if let Some(held) = self.fetched.pop_front() {
                return Ok(Some(held));
            }
            match self.fetch().await {
                Ok(messages) if messages.is_empty() => {
                    if self.waits && self.until_empty && self.is_done().await {
                        return Ok(None);
                    }
                    self.waits = true;
                }
                Ok(messages) => {
                    self.waits = false;
                    let ack_wait = self.queue.consumer.cached_info().config.ack_wait;
                    let held = messages
                        .into_iter()
                        .map(|message| Held::new(message, ack_wait));
                    self.fetched.extend(held);
                }
                // Another server of the cluster takes over.
                Err(error) => {
                    tracing::debug!(error, "requesting messages");
                    self.require_consumer().await?;
                    sleep(WAIT).await;
                }
            }
        }
    }

    /// Requests what there is, or waits for one message.
    async fn fetch(&self) -> Result<Vec<Message>, async_nats::Error> {
        let consumer = &self.queue.consumer;
        let messages = match self.waits {
            false => {
                let fetch = consumer.fetch().max_messages(self.ahead);
                fetch.expires(WAIT).messages().await?
            }
            true => {
                let batch = consumer.batch().max_messages(1);
                batch.expires(WAIT).messages().await?
            }
        };
        messages.try_collect().await
    }

    /// Whether no message waits, and none is in progress anywhere.
    async fn is_done(&self) -> bool {
        let info = self.queue.consumer.get_info().await;
        info.is_ok_and(|info| info.num_pending == 0 && info.num_ack_pending == 0)
    }

    /// Fails if the consumer or its stream is gone for good.
    async fn require_consumer(&self) -> Result<()> {
        use ConsumerInfoErrorKind::{NotFound, StreamNotFound};

        match self.queue.consumer.get_info().await {
            Err(error) if matches!(error.kind(), NotFound | StreamNotFound) => {
                let consumer = &self.queue.consumer.cached_info().name;
                let detail = format!("the consumer {consumer} was deleted: {error}");
                Err(Error::new(Kind::NotFound, detail))
            }
            _ => Ok(()),
        }
    }
}

impl Held {
    fn new(message: Message, ack_wait: Duration) -> Self {
        let acker = Acker::new(message.context.clone(), message.reply.clone());
        let pause = (ack_wait / 3).max(Duration::from_secs(1));
        let progress = tokio::spawn(async move {
            loop {
                sleep(pause).await;
                // Without it the message is delivered again, which changes nothing.
                let _ = acker.ack_with(AckKind::Progress).await;
            }
        });
        Self {
            message,
            _progress: AbortOnDropHandle::new(progress),
        }
    }

    pub(super) fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    pub(super) fn headers(&self) -> Option<&HeaderMap> {
        self.message.headers.as_ref()
    }

    /// Returns how often the message was delivered.
    pub(super) fn delivered(&self) -> i64 {
        self.message.info().map_or(1, |info| info.delivered)
    }

    /// Describes the message by its number in the stream.
    pub(super) fn name(&self) -> String {
        match self.message.info() {
            Ok(info) => format!("message {}", info.stream_sequence),
            Err(_) => "a message".to_owned(),
        }
    }

    /// The image of the message is stored.
    pub(super) async fn acknowledge(self) {
        self.answer(AckKind::Ack).await;
    }

    /// Has the message delivered again, each time after a longer pause.
    pub(super) async fn retry_later(self) {
        let delay = Duration::from_secs(1 << self.delivered().clamp(0, 6)).min(MAX_DELAY);
        self.answer(AckKind::Nak(Some(delay))).await;
    }

    async fn answer(self, kind: AckKind) {
        if let Err(error) = self.message.ack_with(kind).await {
            // The message is delivered again, which changes nothing.
            tracing::debug!(error, "answering a message");
        }
    }
}

async fn connect(address: &StreamAddress, access: &Access<'_>) -> Result<Client> {
    let failed = |error: &dyn std::fmt::Display| {
        let detail = format!("connecting to the servers of {address}: {error}");
        Error::new(Kind::InvalidOption, detail)
    };
    let mut options = ConnectOptions::new().name("dinoserve");
    if let Some((user, password)) = address.user.clone() {
        options = options.user_and_password(user, password);
    }
    if let Some(file) = access.credentials {
        let read = options.credentials_file(file).await;
        options = read.map_err(|error| Error::reading(file, error))?;
    }
    if let Some(file) = access.certificates {
        options = options.add_root_certificates(file.to_owned());
    }
    let options = options.event_callback(async |event| tracing::info!("NATS: {event}"));
    let connected = options.connect(address.servers.clone()).await;
    connected.map_err(|error| failed(&error))
}
