use super::*;

async fn read(input: &[u8], bytes_max: usize) -> Vec<(u64, Result<String, String>)> {
    // A buffer of a few bytes, so that lines span several reads.
    let mut lines = Lines::new(tokio::io::BufReader::with_capacity(7, input), bytes_max);
    let mut read = Vec::new();
    while let Some(line) = lines.next().await.expect("reading from memory works") {
        let text = line.text.map(|t| String::from_utf8_lossy(&t).trim().to_owned()).map_err(|e| e.to_string());
        read.push((line.number, text));
    }
    read
}

#[tokio::test]
async fn each_line_is_a_message_and_keeps_its_number() {
    let found = read(b"{\"a\": 1}\n\n  \n{broken\n{\"b\": 2}", 100).await;
    assert_eq!(
        found,
        [(1, Ok("{\"a\": 1}".to_owned())), (4, Ok("{broken".to_owned())), (5, Ok("{\"b\": 2}".to_owned()))]
    );
}

#[tokio::test]
async fn one_message_may_span_lines() {
    let found = read(b"{\n  \"a\": 1\n}\n", 100).await;
    assert_eq!(found, [(1, Ok("{\n  \"a\": 1\n}".to_owned()))]);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_skipped() {
    let input = format!("{{\"a\": 1}}\n{}\n{{\"b\": 2}}\n", "x".repeat(5_000));
    let found = read(input.as_bytes(), 64).await;
    assert_eq!(found.len(), 3);
    assert!(found[1].1.as_ref().expect_err("too long").contains("max-message-bytes"));
    assert_eq!(found[2], (3, Ok("{\"b\": 2}".to_owned())));
    let last = read("x".repeat(100).as_bytes(), 64).await;
    assert!(last[0].1.is_err(), "also without a newline at the end");
    let exact = format!("{}\n", "x".repeat(64));
    assert!(read(exact.as_bytes(), 64).await[0].1.is_ok(), "the limit itself is allowed");
}

#[tokio::test]
async fn a_document_that_is_too_long_is_one_error() {
    let input = format!("{{\n{}\n}}", "  \"a\": 1,\n".repeat(50));
    let found = read(input.as_bytes(), 64).await;
    assert_eq!(found.len(), 1);
    assert!(found[0].1.is_err());
}

#[tokio::test]
async fn reading_is_cancel_safe() {
    use tokio::io::AsyncWriteExt;
    let (mut writer, reader) = tokio::io::duplex(1024);
    let mut lines = Lines::new(tokio::io::BufReader::new(reader), 100);
    for piece in ["{\n  \"a\"", ": 1,\n", "  \"b\": 2\n"] {
        writer.write_all(piece.as_bytes()).await.expect("there is room");
        assert!(lines.next().now_or_never().is_none(), "the document is not whole");
    }
    writer.write_all(b"}\n").await.expect("there is room");
    drop(writer);
    let line = lines.next().await.expect("reading works").expect("a document");
    assert_eq!(line.text.expect("it is short"), b"{\n  \"a\": 1,\n  \"b\": 2\n}");
    assert!(lines.next().await.expect("reading works").is_none());
}
