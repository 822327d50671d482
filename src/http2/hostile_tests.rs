//! A side of a connection, and bytes of no good will.

use std::task::Poll;

use proptest::prelude::*;

use super::tests::{Pair, TERMS, cx, get, send, status};
use super::{Broken, Code, Connection, Ended, Side, Taken, Terms};

/// What a client says in a session with requests of all kinds.
fn session(gives_up: bool) -> Vec<u8> {
    let mut pair = Pair { client: Connection::new(Side::Client, TERMS), server: Connection::new(Side::Server, TERMS) };
    let mut said = Vec::new();
    let mut hear = |pair: &mut Pair| {
        said.extend_from_slice(pair.client.output());
        pair.talk();
    };
    hear(&mut pair);
    for round in 0..3_u32 {
        let id = pair.client.request(false, round == 0, get).unwrap();
        if round > 0 {
            assert!(send(&mut pair.client, id, &vec![round as u8; 20_000], round == 1).is_ready());
        }
        if round == 2 {
            pair.client.respond(id, true, |packer| packer.field(b"x-trailer", &vec![b'1'; 30_000])).unwrap();
        }
        hear(&mut pair);
        pair.server.accept().unwrap();
        pair.server.respond(id, true, |packer| packer.status(200)).unwrap();
        hear(&mut pair);
        pair.client.release(id);
        pair.server.release(id);
    }
    let id = pair.client.request(false, false, get).unwrap();
    hear(&mut pair);
    if gives_up {
        pair.client.release(id);
        hear(&mut pair);
    }
    said
}

/// What a server makes of such bytes, in such pieces: how much of each request came, and how the connection ended.
fn heard(bytes: &[u8], mut sizes: impl Iterator<Item = usize>) -> (Vec<(u32, usize, bool)>, Option<Ended>) {
    let mut server = Connection::new(Side::Server, TERMS);
    let (mut rest, mut requests) = (bytes, Vec::new());
    while !rest.is_empty() {
        let (now, later) = rest.split_at(sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
        server.receive(now);
        rest = later;
        while let Some(id) = server.accept() {
            requests.push((id, 0, false));
        }
        for (id, length, over) in &mut requests {
            let mut buffer = [0; 4096];
            while let Poll::Ready(Ok(Taken { bytes, end })) = server.poll_take(&mut cx(), *id, &mut buffer) {
                *length += bytes;
                *over |= end;
                if end {
                    break;
                }
            }
        }
        server.sent(server.output().len());
    }
    (requests, server.ended())
}

proptest! {
    #[test]
    fn a_session_is_heard_the_same_whatever_pieces_it_comes_in(
        sizes in prop::collection::vec(prop_oneof![1_usize..12, 1_usize..20_000], 1..400),
    ) {
        let session = session(false);
        let whole = heard(&session, std::iter::empty());
        prop_assert_eq!(&whole.0, &[(1, 0, true), (3, 20_000, true), (5, 20_000, true), (7, 0, false)]);
        prop_assert_eq!(heard(&session, sizes.into_iter()), whole);
    }

    #[test]
    fn a_session_with_faults_in_it_ends_in_good_order_and_in_bounds(
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1_usize..5000, 1..50),
    ) {
        let mut session = session(true);
        for (at, byte) in faults {
            let at = at.index(session.len());
            session[at] = byte;
        }
        // Some of it twice, so that states are met that no good client comes to.
        let again = session[24..].to_vec();
        session.truncate(24 + cut.index(session.len() - 24));
        session.extend(again);
        let (requests, _) = heard(&session, sizes.into_iter());
        prop_assert!(requests.iter().all(|(_, length, _)| *length <= session.len()));
    }

    #[test]
    fn frames_of_any_kind_end_in_good_order_on_either_side(
        frames in prop::collection::vec(
            (0_u8..11, any::<u8>(), prop_oneof![Just(0_u32), 1_u32..12], prop::collection::vec(any::<u8>(), 0..60)),
            0..60,
        ),
    ) {
        for side in [Side::Client, Side::Server] {
            let mut pair = Pair::new();
            pair.ask(false);
            pair.ask(true);
            let mut connection = if side == Side::Client { pair.client } else { pair.server };
            for (kind, flags, stream, payload) in &frames {
                let head = [0, 0, payload.len() as u8, *kind, *flags];
                connection.receive(&[&head[..], &stream.to_be_bytes(), payload].concat());
                while connection.accept().is_some() {}
                connection.sent(connection.output().len() / 2);
            }
            let open = connection.load().1;
            prop_assert!(open <= connection.streams(), "{} open of {}", open, connection.streams());
            let ids: Vec<u32> = connection.streams.keys().copied().collect();
            ids.into_iter().for_each(|id| connection.release(id));
            prop_assert_eq!((connection.load().1, connection.streams()), (0, 0));
        }
    }
}

#[test]
fn a_response_that_can_have_no_body_and_has_one_is_none_from_its_head_on() {
    for (to_head, status) in [(true, 200), (false, 204), (false, 304)] {
        for with_trailers in [true, false] {
            let mut pair = Pair::new();
            let id = pair.client.request(to_head, true, get).unwrap();
            pair.talk();
            assert_eq!(pair.server.accept(), Some(id));
            pair.server.respond(id, false, |packer| packer.status(status)).unwrap();
            assert!(send(&mut pair.server, id, b"evil", !with_trailers).is_ready());
            if with_trailers {
                pair.server.respond(id, true, |packer| packer.field(b"x-trailer", b"1")).unwrap();
            }
            pair.talk();
            let Poll::Ready(Err(broken)) = pair.client.poll_head(&mut cx(), id) else { panic!("it has a head") };
            assert_eq!(broken, Broken::Wrong(Code::PROTOCOL_ERROR));
            assert_eq!(pair.client.fault_of(id), Some("it has a body where there can be none"));
            let mut buffer = [0; 10];
            assert_eq!(pair.client.poll_take(&mut cx(), id, &mut buffer), Poll::Ready(Err(broken)));
            assert_eq!(pair.client.ended(), None, "others on the connection are not concerned");
        }
    }
}

#[test]
fn a_connection_that_takes_no_request_is_over_with_its_settings_and_one_that_takes_none_any_more_is_not() {
    let none = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0];
    let mut client = Connection::new(Side::Client, TERMS);
    let id = client.request(false, true, get).unwrap();
    client.receive(&none);
    assert!(client.poll_broken(&mut cx(), id).is_ready());
    assert_eq!(client.fault_of(id), Some("its settings allow no request at all"));
    let mut client = Connection::new(Side::Client, TERMS);
    client.receive(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let id = client.request(false, true, get).unwrap();
    client.receive(&none);
    assert!(client.poll_broken(&mut cx(), id).is_pending());
    assert_eq!(client.load(), (0, 1));
}

#[test]
fn a_client_may_give_up_any_number_of_requests_before_its_server_hears_of_the_first() {
    let mut pair = Pair::with(Terms { streams: 2000, given_up: 2000, ..TERMS });
    let stays = pair.ask(true);
    let given_up: Vec<u32> = (0..1000).map(|_| pair.ask(true)).collect();
    for id in given_up {
        pair.client.release(id);
        pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
        let _as_much_as_there_is_room_for = send(&mut pair.server, id, &[0; 100], false);
    }
    pair.server.respond(stays, true, |packer| packer.status(200)).unwrap();
    pair.talk();
    assert_eq!((pair.client.ended(), pair.server.ended()), (None, None));
    assert_eq!(status(&mut pair.client, stays), Some((200, true)));
    pair.client.release(stays);
    // And the connection is good for more.
    let next = pair.ask(true);
    pair.server.respond(next, true, |packer| packer.status(200)).unwrap();
    pair.talk();
    assert_eq!(status(&mut pair.client, next), Some((200, true)));
}

#[test]
fn a_server_may_give_up_all_requests_of_a_client_before_that_hears_of_it() {
    let mut pair = Pair::with(Terms { streams: 100, ..TERMS });
    let given_up: Vec<u32> = (0..100).map(|_| pair.ask(false)).collect();
    for id in &given_up {
        pair.server.release(*id);
    }
    for id in given_up {
        assert!(send(&mut pair.client, id, b"more", false).is_ready());
        pair.client.respond(id, true, |packer| packer.field(b"x-trailer", b"1")).unwrap();
    }
    pair.talk();
    assert_eq!((pair.client.ended(), pair.server.ended()), (None, None));
    let next = pair.ask(true);
    pair.server.respond(next, true, |packer| packer.status(200)).unwrap();
    pair.talk();
    assert_eq!(status(&mut pair.client, next), Some((200, true)));
}
