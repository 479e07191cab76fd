use std::io::Cursor;
use std::time::Duration;

use proptest::prelude::*;
use templates::replica::{Content, Meta, NodeKind, Op, PIECE};

use super::frame::MESSAGE;
use super::*;

fn link(bytes: Vec<u8>) -> Link<Cursor<Vec<u8>>, Vec<u8>> {
    Link::new(Cursor::new(bytes), Vec::new())
}

/// What a link would read that another one wrote.
fn carried(write: impl FnOnce(&mut Link<Cursor<Vec<u8>>, Vec<u8>>)) -> Link<Cursor<Vec<u8>>, Vec<u8>> {
    let mut sender = link(Vec::new());
    write(&mut sender);
    sender.flush().unwrap();
    link(sender.writer().clone())
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..64);
    let meta = (any::<u32>(), any::<i64>(), prop::collection::vec((bytes(), bytes()), 0..3))
        .prop_map(|(mode, seconds, xattrs)| Meta { mode, modified: (seconds, 1), xattrs, ..Meta::default() });
    prop_oneof![
        bytes().prop_map(|path| Op::Directory { path }),
        (bytes(), meta.clone()).prop_map(|(path, meta)| Op::Leave { path, meta }),
        bytes().prop_map(|path| Op::File { path, content: Content::Patched }),
        (any::<u64>(), meta.clone()).prop_map(|(size, meta)| Op::Close { size, meta }),
        (bytes(), bytes()).prop_map(|(path, target)| Op::HardLink { path, target }),
        (bytes(), any::<(u32, u32)>(), meta).prop_map(|(path, device, meta)| Op::Node {
            path,
            kind: NodeKind::Block,
            device,
            meta
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_sent_is_received(ops in prop::collection::vec(op(), 0..8),
                                pieces in prop::collection::vec((any::<u64>(), prop::collection::vec(0..3_u8, 0..5000)), 0..6)) {
        let mut got = carried(|sender| {
            ops.iter().for_each(|op| sender.send(&Ask::Step(op.clone())).unwrap());
            pieces.iter().for_each(|(offset, bytes)| sender.send_piece(*offset, bytes).unwrap());
        });
        for op in ops {
            prop_assert_eq!(got.receive::<Ask>().unwrap(), Received::Message(Ask::Step(op)));
        }
        for (offset, bytes) in pieces {
            prop_assert_eq!(got.receive::<Ask>().unwrap(), Received::Piece(offset));
            prop_assert_eq!(got.piece(), &bytes);
        }
        prop_assert!(matches!(got.receive::<Ask>(), Err(WireError::Closed)));
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in "[MDZ]") {
        let mut frame = kind.into_bytes();
        frame.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        frame.extend(&bytes);
        let _ = link(frame).receive::<Ask>();
        let _ = link(bytes).receive::<Answer>();
    }
}

#[test]
fn lengths_have_limits() {
    for (kind, length) in [(b'M', MESSAGE + 1), (b'D', PIECE + 9), (b'Z', usize::try_from(u32::MAX).unwrap())]
    {
        let mut head = vec![kind];
        head.extend(u32::try_from(length).unwrap().to_le_bytes());
        assert!(matches!(link(head).receive::<Ask>(), Err(WireError::Protocol(_))));
    }
    // One that unpacks to more than a piece.
    let bomb = zstd::bulk::compress(&vec![0; PIECE + 1], 1).unwrap();
    let mut frame = vec![b'Z'];
    frame.extend(u32::try_from(bomb.len() + 8).unwrap().to_le_bytes());
    frame.extend([0; 8]);
    frame.extend(bomb);
    assert!(matches!(link(frame).receive::<Ask>(), Err(WireError::Protocol(_))));
}

#[test]
fn what_compresses_is_compressed_and_what_does_not_is_not() {
    let noise: Vec<u8> =
        (0..PIECE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8 ^ (i >> 7) as u8).collect();
    let mut sender = link(Vec::new());
    sender.send_piece(0, &vec![7; PIECE]).unwrap();
    assert!(sender.sent() < 1000);
    let before = sender.sent();
    sender.send_piece(0, &noise).unwrap();
    assert!(sender.sent() - before <= PIECE as u64);
    sender.compress(Compress::No);
    let before = sender.sent();
    sender.send_piece(0, &vec![7; PIECE]).unwrap();
    assert_eq!(sender.sent() - before, PIECE as u64);
}

#[test]
fn greetings_agree_and_skip_what_a_login_shell_prints() {
    let seconds = Duration::from_secs;
    let mut answer = Vec::new();
    assert_eq!(accept(&mut answer, &mut Cursor::new(b"VZMIGRATE 1 7\n")).unwrap(), (3, PATIENCE));
    assert_eq!(answer, b"VZMIGRATE 3\n");
    for (said, patience) in [("3 3 20", seconds(20)), ("3 9 0", seconds(1)), ("3 3 x", PATIENCE)] {
        let said = format!("VZMIGRATE {said}\n");
        let accepted = accept(&mut Vec::new(), &mut Cursor::new(said.as_bytes())).unwrap();
        assert_eq!(accepted, (3, patience), "{said}");
    }
    let greet = |out: &mut Vec<u8>, said: &[u8]| greet(out, &mut Cursor::new(said), seconds(7));
    let mut said = Vec::new();
    assert_eq!(greet(&mut said, b"Welcome!\nVZMIGRATE 3\n").unwrap(), 3);
    assert_eq!(said, b"VZMIGRATE 3 3 7\n");
    let mut out = Vec::new();
    assert!(matches!(accept(&mut out, &mut Cursor::new(b"VZMIGRATE 8 9\n")), Err(WireError::Version { .. })));
    assert!(matches!(greet(&mut Vec::new(), &out), Err(WireError::Version { .. })));
    assert!(matches!(
        accept(&mut Vec::new(), &mut Cursor::new(b"GET / HTTP/1.1\n")),
        Err(WireError::Protocol(_))
    ));
    let error = greet(&mut Vec::new(), b"sh: vzmigrate: not found\n").unwrap_err();
    assert!(error.to_string().contains("not found"), "{error}");
    assert!(matches!(greet(&mut Vec::new(), b""), Err(WireError::Closed)));
    assert!(greet(&mut Vec::new(), &vec![b'x'; 1 << 20]).is_err());
}
