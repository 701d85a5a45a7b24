//! A connection as bytes: plain, or inside TLS.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::receive_time::ReceiveTime;

/// Bytes that are read ahead of an encrypted connection to see whether its client has gone: it
/// says so inside the encryption.
const AHEAD_BYTES: usize = 1 << 10;

/// Bytes that are read of one client before everybody else of this thread has had a turn, and
/// whoever waits for a time: some tenths of a millisecond with what becomes of them. The runtime by
/// itself looks at its timers after 61 turns, each of which may be a buffer full of a large body.
const SLICE_BYTES: usize = 256 << 10;

/// The bytes of one client.
#[derive(Debug)]
pub(crate) struct Io {
    form: IoKind,
    receive_time: ReceiveTime,
    slice: Slice,
}

/// What has been read without a pause.
#[derive(Default)]
struct Slice {
    bytes: usize,
    others: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Slice {
    /// Waits until everybody else has had a turn, if it is theirs.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(others) = &mut self.others {
            ready!(others.as_mut().poll(cx));
            self.others = None;
        }
        Poll::Ready(())
    }

    /// So many bytes have been read, or none are there.
    fn read(&mut self, bytes: Option<usize>) {
        self.bytes = bytes.map_or(0, |bytes| self.bytes + bytes);
        if self.bytes >= SLICE_BYTES {
            self.bytes = 0;
            self.others = Some(Box::pin(tokio::task::yield_now()));
        }
    }
}

impl std::fmt::Debug for Slice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slice").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum IoKind {
    Plain(TcpStream),
    Tls(Box<Encrypted>),
}

#[derive(Debug)]
struct Encrypted {
    stream: TlsStream<TcpStream>,
    /// Read while nothing was to be read, to be read first.
    ahead: Vec<u8>,
}

impl Encrypted {
    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Look>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(Look::IsThere));
        }
        let mut space = [MaybeUninit::uninit(); AHEAD_BYTES];
        let mut piece = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        self.ahead.extend_from_slice(piece.filled());
        Poll::Ready(Ok(if self.ahead.is_empty() { Look::HasGone } else { Look::IsThere }))
    }
}

/// What a look at a connection shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// There is something to read.
    IsThere,
    /// The client has closed its side.
    HasGone,
}

impl Look {
    pub(super) fn has_gone(self) -> bool {
        self == Self::HasGone
    }
}

impl Io {
    pub(crate) fn plain(stream: TcpStream) -> Self {
        Self::new(IoKind::Plain(stream))
    }

    pub(super) fn encrypted(stream: TlsStream<TcpStream>) -> Self {
        Self::new(IoKind::Tls(Box::new(Encrypted { stream, ahead: Vec::new() })))
    }

    fn new(form: IoKind) -> Self {
        Self { form, receive_time: ReceiveTime::new(), slice: Slice::default() }
    }

    /// When what is read of it had come.
    pub(crate) fn receive_time(&self) -> &ReceiveTime {
        &self.receive_time
    }

    fn socket(&self) -> &TcpStream {
        match &self.form {
            IoKind::Plain(stream) => stream,
            IoKind::Tls(tls) => tls.stream.get_ref().0,
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.form, IoKind::Tls(_))
    }

    /// Whether both sides have chosen HTTP/2.
    pub(super) fn is_http2(&self) -> bool {
        let IoKind::Tls(tls) = &self.form else { return false };
        tls.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    /// The certificate that the client has shown, DER.
    pub(crate) fn client_certificate(&self) -> Option<&[u8]> {
        let IoKind::Tls(tls) = &self.form else { return None };
        let certificates = tls.stream.get_ref().1.peer_certificates()?;
        certificates.first().map(AsRef::as_ref)
    }

    /// Waits until there is something to read, or the client has gone, and leaves it unread.
    pub(super) fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Look>> {
        match &mut self.form {
            IoKind::Plain(stream) => {
                let mut byte = [MaybeUninit::uninit()];
                let seen = ready!(stream.poll_peek(cx, &mut ReadBuf::uninit(&mut byte)))?;
                Poll::Ready(Ok(if seen == 0 { Look::HasGone } else { Look::IsThere }))
            }
            IoKind::Tls(tls) => tls.read_ahead(cx),
        }
    }

    /// What is not sent is not kept when it is closed.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        self.socket().set_zero_linger()
    }
}

impl AsyncRead for Io {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.slice.poll_turn(cx));
        let before = buffer.filled().len();
        let read = match &mut this.form {
            IoKind::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            IoKind::Tls(tls) if tls.ahead.is_empty() => {
                Pin::new(&mut tls.stream).poll_read(cx, buffer)
            }
            IoKind::Tls(tls) => {
                let most = buffer.remaining().min(tls.ahead.len());
                buffer.put_slice(tls.ahead.get(..most).unwrap_or_default());
                tls.ahead.drain(..most);
                Poll::Ready(Ok(()))
            }
        };
        this.slice.read(read.is_ready().then(|| buffer.filled().len() - before));
        if read.is_ready() {
            this.receive_time.read(this.socket());
        }
        read
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().form {
            IoKind::Plain(stream) => Pin::new(stream).poll_write(cx, data),
            IoKind::Tls(tls) => Pin::new(&mut tls.stream).poll_write(cx, data),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().form {
            IoKind::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            IoKind::Tls(tls) => Pin::new(&mut tls.stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().form {
            IoKind::Plain(stream) => Pin::new(stream).poll_flush(cx),
            IoKind::Tls(tls) => Pin::new(&mut tls.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().form {
            IoKind::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            IoKind::Tls(tls) => Pin::new(&mut tls.stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    /// How often others had a turn while so many pieces of 64 KiB were read.
    async fn turns(pieces: usize, is_there: impl Fn(usize) -> bool) -> usize {
        let turns = Rc::new(Cell::new(0));
        let counted = Rc::clone(&turns);
        let others = actix_rt::spawn(async move {
            loop {
                tokio::task::yield_now().await;
                counted.set(counted.get() + 1);
            }
        });
        tokio::task::yield_now().await;
        let (mut slice, before) = (Slice::default(), turns.get());
        for piece in 0..pieces {
            poll_fn(|cx| slice.poll_turn(cx)).await;
            slice.read(is_there(piece).then_some(64 << 10));
        }
        others.abort();
        turns.get() - before
    }

    #[actix::test]
    async fn others_have_their_turn_after_each_slice() {
        assert_eq!(turns(4, |_| true).await, 0);
        assert_eq!(turns(101, |_| true).await, 25);
        assert_eq!(
            turns(101, |piece| piece % 4 < 3).await,
            0,
            "they had it when nothing was there"
        );
    }
}
