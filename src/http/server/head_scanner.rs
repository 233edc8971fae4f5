//! Follows the requests of an HTTP/1 connection by their bytes, to find where heads begin and end.

/// The first bytes of an HTTP/2 client.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Maximum number of bytes that are kept of a line, more than the fields that frame a body take.
const MAX_LINE: usize = 256;

/// Follows the requests of a connection.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    state: State,
    line: Line,
    /// Whether the request line was read.
    has_request_line: bool,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// That many bytes of HTTP/2's preface were read.
    Preface(usize),
    Head,
    /// That many bytes of a body, or of a chunk with its end, are left.
    Body(u64),
    Chunk(u64),
    ChunkSize,
    Trailer,
    /// A head has a bare line feed.
    Rejected,
    /// Nothing more is scanned.
    Off,
}

impl Default for State {
    fn default() -> Self {
        Self::Preface(0)
    }
}

/// The line that is being read.
#[derive(Debug, Default)]
struct Line {
    start: Vec<u8>,
    length: usize,
    last: u8,
}

impl Line {
    fn push(&mut self, byte: u8) {
        if self.start.len() < MAX_LINE {
            self.start.push(byte);
        }
        self.length += 1;
        self.last = byte;
    }

    fn clear(&mut self) {
        self.start.clear();
        self.length = 0;
        self.last = 0;
    }

    /// Returns the line without the carriage return; `None` if it was too long to keep.
    fn text(&self) -> Option<&[u8]> {
        let text = self.start.strip_suffix(b"\r").unwrap_or(&self.start);
        (self.length == self.start.len()).then_some(text)
    }
}

/// How the head says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    /// Not clear; hyper rejects it.
    Unknown,
}

impl HeadScanner {
    /// Returns whether a head had a bare line feed.
    pub(super) fn has_rejected(&self) -> bool {
        self.state == State::Rejected
    }

    /// Follows the bytes, replaces a bare line feed in a head, and returns the number of bytes up
    /// to there.
    pub(super) fn scan(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let used = match self.state {
                State::Off => return bytes.len(),
                State::Rejected => return at,
                State::Body(left) | State::Chunk(left) => {
                    let used = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.skip(left - used as u64);
                    used
                }
                State::Preface(matched) if byte == HTTP2_PREFACE[matched] => {
                    self.state = match matched + 1 == HTTP2_PREFACE.len() {
                        true => State::Off,
                        false => State::Preface(matched + 1),
                    };
                    1
                }
                State::Preface(matched) => {
                    self.state = State::Head;
                    for &before in &HTTP2_PREFACE[..matched] {
                        self.head_byte(before);
                    }
                    0
                }
                State::Head => {
                    if !self.head_byte(byte) {
                        bytes[at] = 0;
                        self.state = State::Rejected;
                    }
                    1
                }
                State::ChunkSize | State::Trailer => {
                    self.framing_byte(byte);
                    1
                }
            };
            at += used;
        }
        at
    }

    fn skip(&mut self, left: u64) {
        self.state = match self.state {
            State::Chunk(_) if left == 0 => State::ChunkSize,
            State::Chunk(_) => State::Chunk(left),
            _ if left == 0 => State::Head,
            _ => State::Body(left),
        };
    }

    /// Takes a byte of a head; returns false for a bare line feed.
    fn head_byte(&mut self, byte: u8) -> bool {
        if byte != b'\n' {
            self.line.push(byte);
            return true;
        }
        if self.line.last != b'\r' {
            return false;
        }
        let is_empty = self.line.length == 1;
        if is_empty && self.has_request_line {
            self.state = match self.framing {
                Framing::None | Framing::Length(0) => State::Head,
                Framing::Length(length) => State::Body(length),
                Framing::Chunked => State::ChunkSize,
                Framing::Unknown => State::Off,
            };
            self.framing = Framing::None;
            self.has_request_line = false;
        } else if self.has_request_line {
            self.framing = self.framing_after_field();
        } else {
            // Empty lines in front of a request are skipped.
            self.has_request_line = !is_empty;
        }
        self.line.clear();
        true
    }

    fn framing_after_field(&self) -> Framing {
        let start = &self.line.start;
        let colon = start
            .iter()
            .position(|&byte| byte == b':')
            .unwrap_or(start.len());
        let name = start[..colon].to_ascii_lowercase();
        let value = self.line.text().and_then(|line| line.get(colon + 1..));
        let value = value.map(|value| value.trim_ascii().to_ascii_lowercase());
        match (&*name, value) {
            (b"content-length", Some(value)) => {
                let digits = str::from_utf8(&value)
                    .ok()
                    .filter(|digits| !digits.starts_with('+'));
                match (self.framing, digits.and_then(|digits| digits.parse().ok())) {
                    (Framing::None, Some(length)) => Framing::Length(length),
                    (Framing::Length(before), Some(length)) if before == length => self.framing,
                    (Framing::Chunked, Some(_)) => Framing::Chunked,
                    _ => Framing::Unknown,
                }
            }
            (b"transfer-encoding", Some(value)) => {
                let last = value
                    .rsplit(|&byte| byte == b',')
                    .next()
                    .unwrap_or_default();
                match last.trim_ascii() {
                    b"chunked" if self.framing != Framing::Unknown => Framing::Chunked,
                    _ => Framing::Unknown,
                }
            }
            (b"content-length" | b"transfer-encoding", None) => Framing::Unknown,
            _ => self.framing,
        }
    }

    /// Takes a byte between chunks.
    fn framing_byte(&mut self, byte: u8) {
        if byte != b'\n' {
            return self.line.push(byte);
        }
        let is_trailer = self.state == State::Trailer;
        self.state = if is_trailer {
            let is_empty = self.line.text().is_some_and(<[u8]>::is_empty);
            if is_empty {
                State::Head
            } else {
                State::Trailer
            }
        } else {
            match self.chunk_size() {
                Some(0) => State::Trailer,
                // With the line end after the chunk.
                Some(size) => size.checked_add(2).map_or(State::Off, State::Chunk),
                None => State::Off,
            }
        };
        self.line.clear();
    }

    fn chunk_size(&self) -> Option<u64> {
        let line = self.line.text()?;
        let digits = line
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let digits = str::from_utf8(&line[..digits]).ok()?;
        u64::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans in pieces of a size, and returns what hyper gets.
    fn scanned(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut scanner = HeadScanner::default();
        let mut passed = Vec::new();
        for piece in bytes.to_vec().chunks_mut(piece) {
            let kept = scanner.scan(piece);
            passed.extend_from_slice(&piece[..kept]);
        }
        passed
    }

    #[test]
    fn requests_pass_unchanged_whatever_their_bodies_hold() {
        let requests: [&[u8]; 8] = [
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET /a HTTP/1.1\r\nhost: x\r\n\r\n",
            b"\r\nPOST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\na\n\nGET / HTTP/1.1\r\n\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;a=b\r\n\n\n\n\r\n0\r\n\
              t: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
              A\r\n\n\n\n\n\n\n\n\n\n\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n\n\n",
            // Not clear: hyper decides.
            b"POST / HTTP/1.1\r\nContent-Length: 2, 2\r\n\r\n\n\n\n\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n\n\n\n\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\n\n\n",
        ];
        for request in requests {
            for piece in [1, 3, 7, 1000] {
                let text = String::from_utf8_lossy(request);
                assert!(scanned(request, piece) == request, "{text} by {piece}");
            }
        }
    }

    #[test]
    fn a_bare_line_feed_in_any_head_becomes_a_nul() {
        for (request, at) in [
            (&b"GET / HTTP/1.1\nhost: x\r\n\r\n"[..], 14),
            (b"GET / HTTP/1.1\r\nhost: x\n\r\n", 23),
            (b"GET / HTTP/1.1\r\nhost: x\r\n\n", 25),
            (b"\nGET / HTTP/1.1\r\n\r\n", 0),
            (b"PRI\n", 3),
            (b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\n\nGET /\n", 44),
            (
                b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /\n",
                57,
            ),
        ] {
            for piece in [1, 4, 1000] {
                let mut expected = request[..=at].to_vec();
                expected[at] = 0;
                assert_eq!(scanned(request, piece), expected, "byte {at} by {piece}");
            }
        }
    }
}
