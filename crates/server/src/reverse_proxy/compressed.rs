//! A tool's body that is compressed while it passes.
//!
//! Nothing waits for the rest: as soon as the tool pauses, all that it has sent so far goes on to the visitor. An answer
//! takes a bounded share of memory however long it is, and all together do; those for which none is left pass as they
//! are.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use super::bodies::{BodyError, ToolBody};
use super::compression::Coding;

/// How many mebibytes all answers that are compressed at a time may take together.
pub(super) const MEMORY: usize = 256;

/// How much is compressed at a time, so that no other connection waits for long.
const PIECE: usize = 32 * 1024;

/// What is sent at least while more is coming.
const ENOUGH: usize = 8 * 1024;

/// The levels that give most for the time that they take.
const GZIP: u32 = 5;
const BROTLI: u32 = 4;
const ZSTD: i32 = 3;

/// How far back equal texts are looked for: 2^18 bytes.
const WINDOW: u32 = 18;

/// A body of a tool, compressed.
pub(super) struct Compressed {
    body: ToolBody,
    /// Gone when all of it was given out.
    encoder: Option<Encoder>,
    /// What the tool sent and the encoder has not seen.
    rest: Bytes,
    /// Whether the encoder holds back something.
    holds: bool,
    trailers: Option<HeaderMap>,
    _permit: OwnedSemaphorePermit,
}

/// What compresses one answer.
pub(super) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Compressed {
    /// Compresses `body` as it comes.
    pub(super) fn new(body: ToolBody, (encoder, permit): (Encoder, OwnedSemaphorePermit)) -> Self {
        let (rest, encoder) = (Bytes::new(), Some(encoder));
        Self { body, encoder, rest, holds: false, trailers: None, _permit: permit }
    }

    /// Whether everything was given out.
    pub(super) fn is_over(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(encoder) = &mut self.encoder else {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            };
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(PIECE.min(self.rest.len()));
                encoder.output().write_all(&piece).map_err(BodyError::Compression)?;
                self.holds = true;
                if encoder.written().len() >= ENOUGH {
                    return Poll::Ready(Some(Ok(encoder.take())));
                }
                continue;
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        return Poll::Ready(self.finish());
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(self.finish()),
                Poll::Pending if self.holds => {
                    encoder.output().flush().map_err(BodyError::Compression)?;
                    self.holds = false;
                    if !encoder.written().is_empty() {
                        return Poll::Ready(Some(Ok(encoder.take())));
                    }
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn finish(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        let last = self.encoder.take()?.finish();
        Some(last.map(|last| Frame::data(Bytes::from(last))).map_err(BodyError::Compression))
    }
}

// === impl Encoder ===

impl Encoder {
    /// One that has seen nothing yet.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP))),
            Coding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, BROTLI, WINDOW))),
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD)?;
                encoder.window_log(WINDOW)?;
                Self::Zstd(encoder)
            }
        })
    }

    /// How many mebibytes one takes, rounded up.
    pub(super) fn memory(coding: Coding) -> u32 {
        match coding {
            Coding::Gzip => 1,
            Coding::Zstd => 2,
            Coding::Brotli => 4,
        }
    }

    fn output(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }

    fn written(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn take(&mut self) -> Frame<Bytes> {
        Frame::data(Bytes::from(std::mem::take(self.written())))
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}
