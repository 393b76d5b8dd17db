//! HTTP/2 frames: heads that never end, and GOAWAY of the server.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Server;
use super::connections::{IMPATIENT, secure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types and flags of frames, and error codes (RFC 9113, sections 6 and 7).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Far more than `server.read-timeout` here.
const PATIENCE: Duration = Duration::from_secs(20);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a GET, encoded without any table (RFC 7541).
fn head(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    // GET, https, a path, an authority.
    [&[0x82, 0x87, 0x04][..], &text(path), &[0x01], &text("localhost")].concat()
}

async fn connect(server: &Server, tls: &TlsConnector) -> TlsStream<TcpStream> {
    let address = server.url.rsplit('/').next().expect("an address");
    let tcp = TcpStream::connect(address).await.expect("it listens");
    let mut stream = tls.connect("127.0.0.1".try_into().expect("an address"), tcp).await.expect("it is trusted");
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("written");
    stream
}

/// Sends these pieces, each after a pause, until they end or the server disconnects. Returns the error code of the server, if any.
async fn end_after(
    stream: TlsStream<TcpStream>,
    pieces: impl Iterator<Item = Vec<u8>> + Send + 'static,
    pause: Duration,
) -> Option<u32> {
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        for piece in pieces {
            if write.write_all(&piece).await.is_err() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        write
    });
    let mut bytes = Vec::new();
    // The read may fail; what was received before is kept.
    let ended = tokio::time::timeout(PATIENCE, read.read_to_end(&mut bytes)).await;
    assert!(ended.is_ok(), "it is not open any more after {PATIENCE:?}");
    writing.abort();
    reason(&bytes)
}

/// The last error code in these frames.
fn reason(mut bytes: &[u8]) -> Option<u32> {
    let mut last = None;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let payload = &rest[..length.min(rest.len())];
        if head[3] == GOAWAY {
            last = payload[4..].first_chunk::<4>().map(|code| u32::from_be_bytes(*code));
        }
        bytes = &rest[payload.len()..];
    }
    last
}

#[tokio::test]
async fn an_idle_connection_gets_a_goaway() {
    let (_home, server, tls) = secure(IMPATIENT);
    let asked = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("/healthz"));
    for sent in [vec![], vec![asked]] {
        let started = Instant::now();
        let stream = connect(&server, &tls).await;
        assert_eq!(end_after(stream, sent.into_iter(), Duration::ZERO).await, Some(NO_ERROR));
        assert!(started.elapsed() > Duration::from_millis(500), "not before it was idle for a while");
    }
}

#[tokio::test]
async fn a_head_that_never_ends_times_out_even_beside_an_active_stream() {
    let (_home, server, tls) = secure(IMPATIENT);
    let half = frame(HEADERS, END_STREAM, 3, &head("/healthz"));
    let events = frame(HEADERS, END_STREAM | END_HEADERS, 1, &head("/v1/events"));
    let cases = [
        ("silent", vec![half.clone()]),
        ("silent beside events", vec![events.clone(), half.clone()]),
        // One frame, byte by byte.
        (
            "dribbling",
            [&half[..], &frame(CONTINUATION, 0, 3, &[0x90; 4_000])].concat().chunks(1).map(<[u8]>::to_vec).collect(),
        ),
    ];
    for (name, sent) in cases {
        let started = Instant::now();
        let stream = connect(&server, &tls).await;
        end_after(stream, sent.into_iter(), Duration::from_millis(20)).await;
        assert!(started.elapsed() < PATIENCE, "{name}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_head_of_endless_frames_is_rejected() {
    let (_home, server, tls) = secure("[server]\nlisten = '127.0.0.1:0'\n");
    let begin = |block: &[u8]| frame(HEADERS, END_STREAM, 1, block);
    let small = [0x00, 1, b'a', 1, b'b'];
    let more = [
        ("empty", frame(CONTINUATION, 0, 1, &[])),
        ("of a field", frame(CONTINUATION, 0, 1, &[0x90])),
        ("large", frame(CONTINUATION, 0, 1, &small.repeat(3_000))),
    ];
    for (name, frame) in more {
        let stream = connect(&server, &tls).await;
        let sent = std::iter::once(begin(&head("/healthz"))).chain(std::iter::repeat_n(frame, 10_000));
        let started = Instant::now();
        assert_eq!(end_after(stream, sent, Duration::ZERO).await, Some(ENHANCE_YOUR_CALM), "{name}");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}: {:?}", started.elapsed());
    }
    assert_eq!(server.stop().0, Some(0));
}
