//! ADD of URLs, from a server of our own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use isolab_images::ingest::hex;
use sha2::{Digest as _, Sha256};

use super::*;

/// Serves each path's content to whoever asks, as long as the process lives; gives its address.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().unwrap().unwrap() != "" {}
            let path = request.split(' ').nth(1).unwrap();
            let file = files.iter().find(|(name, _)| *name == path);
            let (status, content) = match file {
                Some((_, content)) => ("200 OK", &content[..]),
                None => ("404 Not Found", &b"none"[..]),
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\
                 Last-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\n\r\n",
                content.len()
            );
            stream.write_all(&[head.as_bytes(), content].concat()).unwrap();
        }
    });
    address
}

#[test]
fn as_root_files_of_other_hosts_are_added() {
    let archive = archive(&[("inner", "content")]);
    let sum = hex(&Sha256::digest(b"text"));
    let host = serve(vec![("/a/file.txt", b"text".to_vec()), ("/x.tar", archive)]);
    let mut bench = Bench::new();
    let request = BuildRequest { epoch: None, ..bench.request() };
    let dockerfile = format!(
        "FROM base\nARG HOST={host}\nADD $HOST/a/file.txt /d/\n\
         ADD --checksum=sha256:{sum} --chown=web --chmod=644 $HOST/a/file.txt /named\n\
         ADD $HOST/x.tar /t/\nADD --unpack=true $HOST/x.tar /u/\n"
    );
    let image = bench.try_build(&dockerfile, request).unwrap();
    assert_eq!((read(&image, "d/file.txt"), read(&image, "named")), ("text".into(), "text".into()));
    let found = metadata(&image, "d/file.txt");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.mtime()), (0o600, 0, 784_903_526));
    let named = metadata(&image, "named");
    assert_eq!((named.mode() & 0o7777, named.uid(), named.gid()), (0o644, 33, 34));
    assert!(metadata(&image, "t/x.tar").is_file());
    assert_eq!(read(&image, "u/inner"), "content");
    for (line, words) in [
        (format!("ADD {host}/none /"), "404"),
        (format!("ADD --checksum=sha256:{} {host}/x.tar /", "0".repeat(64)), "--checksum says"),
        (format!("ADD --checksum=md5:1 {host}/x.tar /"), "sha256:"),
        (format!("ADD {host}/ /d/"), "404"),
        (format!("COPY {host}/x.tar /"), "there is no"),
        (format!("ADD {host}/r.git /"), "repository"),
        ("ADD http://127.0.0.1:1/x /".to_owned(), "127.0.0.1:1"),
    ] {
        let error = bench.fails(&format!("FROM base\n{line}\n"));
        assert!(error.contains("Dockerfile:2") && error.contains(words), "{line}: {error}");
    }
}
