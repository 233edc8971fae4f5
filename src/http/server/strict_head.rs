//! Rejects request heads whose lines end in a bare line feed. hyper accepts them, while proxies may
//! see other lines than it does.
//!
//! The bytes of HTTP/1 requests are scanned on their way to hyper. A bare line feed in a head
//! becomes a NUL, which hyper answers with 400. hyper reads a head when it is whole, so it gets an
//! end of the head after the NUL, and nothing of what follows. Where the scanner cannot follow, it
//! stops, so that no other byte ever changes.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head_scanner::HeadScanner;

/// What hyper gets after a NUL.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A stream whose reads are scanned.
pub(super) struct StrictHead<S> {
    stream: S,
    scanner: HeadScanner,
    /// Number of bytes of [`HEAD_END`] that were given after a NUL.
    given: usize,
}

impl<S> StrictHead<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            scanner: HeadScanner::default(),
            given: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictHead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.scanner.has_rejected() {
            let left = &HEAD_END[self.given..];
            let count = left.len().min(buffer.remaining());
            buffer.put_slice(&left[..count]);
            self.given += count;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let kept = self.scanner.scan(&mut buffer.filled_mut()[before..]);
        buffer.set_filled(before + kept);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictHead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
