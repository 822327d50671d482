//! Two sides of a connection that hear each other.

use std::task::{Context, Poll, Waker};

use super::connection::ROOM;
use super::hpack::encoder::{Packer, Pseudo};
use super::{Broken, Code, Connection, Ended, Side, Taken, Terms};
use crate::message::head::Known;

pub(super) const TERMS: Terms =
    Terms { streams: 8, header_list: 40_000, stream_window: 100_000, connection_window: 300_000, given_up: 5 };

pub(super) fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

pub(super) fn get(packer: &mut Packer<'_>) {
    packer.pseudo(Pseudo::Method, b"GET");
    packer.pseudo(Pseudo::Scheme, b"https");
    packer.pseudo(Pseudo::Authority, b"example.com");
    packer.pseudo(Pseudo::Path, b"/");
}

pub(super) struct Pair {
    pub(super) client: Connection,
    pub(super) server: Connection,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::with(TERMS)
    }

    pub(super) fn with(terms: Terms) -> Self {
        let (client, server) = (Connection::new(Side::Client, terms), Connection::new(Side::Server, terms));
        let mut pair = Self { client, server };
        pair.talk();
        pair
    }

    /// Has each side hear what the other has to say, until neither has anything.
    pub(super) fn talk(&mut self) {
        while self.pass(usize::MAX) {}
    }

    /// Passes so many bytes on, at most. Whether there were any.
    fn pass(&mut self, most: usize) -> bool {
        let up = pass(&mut self.client, &mut self.server, most);
        let down = pass(&mut self.server, &mut self.client, most);
        up || down
    }

    /// Makes a request and has the server accept it.
    pub(super) fn ask(&mut self, end: bool) -> u32 {
        let id = self.client.request(false, end, get).unwrap();
        self.talk();
        assert_eq!(self.server.accept(), Some(id));
        id
    }
}

fn pass(from: &mut Connection, to: &mut Connection, most: usize) -> bool {
    let bytes = from.output()[..from.output().len().min(most)].to_vec();
    from.sent(bytes.len());
    to.receive(&bytes);
    !bytes.is_empty()
}

pub(super) fn send(side: &mut Connection, id: u32, bytes: &[u8], end: bool) -> Poll<Result<usize, Broken>> {
    side.poll_send(&mut cx(), id, bytes, end)
}

/// Takes all that came of a body.
fn take(side: &mut Connection, id: u32) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match side.poll_take(&mut cx(), id, &mut buffer) {
            Poll::Ready(Ok(Taken { bytes, end })) => {
                all.extend_from_slice(&buffer[..bytes]);
                if end {
                    return (all, true);
                }
            }
            Poll::Ready(Err(broken)) => panic!("{broken:?}"),
            Poll::Pending => return (all, false),
        }
    }
}

pub(super) fn status(side: &mut Connection, id: u32) -> Option<(u16, bool)> {
    match side.poll_head(&mut cx(), id) {
        Poll::Ready(Ok((head, end))) => Some((head.status().unwrap(), end)),
        Poll::Ready(Err(broken)) => panic!("{broken:?}"),
        Poll::Pending => None,
    }
}

/// The frames that wait to be sent: kind, flags, stream and payload.
fn frames(side: &mut Connection) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut rest = side.output().to_vec();
    side.sent(rest.len());
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let stream = u32::from_be_bytes([rest[5], rest[6], rest[7], rest[8]]);
        frames.push((rest[3], rest[4], stream, rest[9..9 + length].to_vec()));
        rest.drain(..9 + length);
    }
    frames
}

#[test]
fn a_request_and_its_answer_go_both_ways_with_bodies_and_trailers() {
    let mut pair = Pair::new();
    let id = pair.ask(false);
    let Poll::Ready(Ok((head, end))) = pair.server.poll_head(&mut cx(), id) else { panic!("no head") };
    assert!(!end && head.fault.is_none());
    assert_eq!(head.pseudo.authority.map(|authority| head.bytes_of(authority)), Some(&b"example.com"[..]));
    assert_eq!(send(&mut pair.client, id, b"a question", false), Poll::Ready(Ok(10)));
    pair.client.respond(id, true, |packer| packer.field(b"X-Trailer", b"1")).unwrap();
    pair.talk();
    assert_eq!(take(&mut pair.server, id), (b"a question".to_vec(), true));
    let trailers = pair.server.take_trailers(id).unwrap();
    assert_eq!(trailers.named(b"x-trailer").collect::<Vec<_>>(), [b"1"]);
    pair.server.respond(id, false, |packer| packer.status(103)).unwrap();
    pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
    assert_eq!(send(&mut pair.server, id, b"an answer", true), Poll::Ready(Ok(9)));
    pair.talk();
    assert_eq!(status(&mut pair.client, id), Some((103, false)));
    assert_eq!(status(&mut pair.client, id), Some((200, false)));
    assert_eq!(take(&mut pair.client, id), (b"an answer".to_vec(), true));
    pair.client.release(id);
    pair.server.release(id);
    assert!(pair.client.output().is_empty() && pair.server.output().is_empty(), "nothing is left to be said");
    assert_eq!((pair.client.load().1, pair.server.load().1, pair.server.streams()), (0, 0, 0));
}

#[test]
fn nobody_sends_more_than_the_windows_have_room_for_and_goes_on_when_there_is_more() {
    let mut pair = Pair::new();
    let id = pair.ask(true);
    pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let (mut sent, mut came, mut over) = (0, Vec::new(), false);
    while !over {
        while let Poll::Ready(more) = send(&mut pair.server, id, &body[sent..], true) {
            sent += more.unwrap();
            assert!(pair.server.output().len() <= ROOM + 1000, "what waits to be sent is bounded");
            if sent == body.len() {
                break;
            }
        }
        pair.talk();
        assert!(sent - came.len() <= 100_000, "the window is");
        let (more, end) = take(&mut pair.client, id);
        assert!(!more.is_empty(), "it goes on");
        came.extend(more);
        over = end;
        pair.talk();
    }
    assert!(came == body);
}

#[test]
fn a_window_grows_for_who_takes_at_once_and_for_nobody_else() {
    let mut pair = Pair::with(Terms { stream_window: 256 * 1024, connection_window: 1 << 24, ..TERMS });
    let (quick, slow) = (pair.ask(true), pair.ask(true));
    let ahead = |pair: &mut Pair, id, taken: usize| {
        let mut sent = 0;
        while let Poll::Ready(Ok(more)) = send(&mut pair.server, id, &vec![0; ROOM], false) {
            sent += more;
            pair.talk();
        }
        let mut buffer = vec![0; taken];
        while !buffer.is_empty()
            && let Poll::Ready(Ok(Taken { bytes: 1.., .. })) = pair.client.poll_take(&mut cx(), id, &mut buffer)
        {
        }
        pair.talk();
        sent
    };
    for id in [quick, slow] {
        pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
    }
    let grown: Vec<usize> = (0..6).map(|_| ahead(&mut pair, quick, 300_000)).collect();
    assert_eq!((grown[0], grown[5]), (65_535, 256 * 1024), "{grown:?}");
    // It takes a part and then the next, and always leaves something.
    assert_eq!(ahead(&mut pair, slow, 0), 65_535);
    for _ in 0..20 {
        let mut buffer = vec![0; 40_000];
        assert!(pair.client.poll_take(&mut cx(), slow, &mut buffer).is_ready());
        pair.talk();
        let before = ahead(&mut pair, slow, 0);
        assert!(before <= 65_535, "{before}");
    }
}

#[test]
fn those_that_wait_for_room_get_it_in_their_turn() {
    let mut pair = Pair::with(Terms { stream_window: 1 << 20, connection_window: 1 << 24, ..TERMS });
    let ids: Vec<u32> = (0..8).map(|_| pair.ask(true)).collect();
    let body = vec![7; 400_000];
    let mut left: Vec<usize> = ids.iter().map(|_| body.len()).collect();
    for id in &ids {
        pair.server.respond(*id, false, |packer| packer.status(200)).unwrap();
    }
    // Those that are refused once try again only when it is their turn.
    let mut asleep: Vec<bool> = ids.iter().map(|_| false).collect();
    while left.iter().any(|left| *left > 0) {
        let mut moved = false;
        for (at, id) in ids.iter().enumerate() {
            let has_turn = pair.server.streams.get(id).is_some_and(|stream| stream.has_turn);
            if left[at] == 0 || asleep[at] && !has_turn {
                continue;
            }
            match send(&mut pair.server, *id, &body[..left[at].min(16_384)], left[at] <= 16_384) {
                Poll::Ready(bytes) => (left[at], moved, asleep[at]) = (left[at] - bytes.unwrap(), true, false),
                Poll::Pending => asleep[at] = true,
            }
        }
        let sent = |left: Option<&usize>| body.len() - left.unwrap();
        let (most, least) = (sent(left.iter().min()), sent(left.iter().max()));
        assert!(least + ROOM >= most / 2, "none is left far behind: {left:?}");
        moved |= pair.pass(50_000);
        for id in &ids {
            take(&mut pair.client, *id);
        }
        assert!(moved, "somebody goes on: {left:?}");
    }
}

#[test]
fn a_turn_that_nobody_makes_use_of_is_passed_on() {
    let mut pair = Pair::with(Terms { stream_window: 1 << 20, connection_window: 1 << 24, ..TERMS });
    let (before, first) = (pair.ask(true), pair.ask(true));
    let (second, third) = (pair.ask(true), pair.ask(true));
    for id in [before, first, second, third] {
        pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
    }
    pair.talk();
    assert_eq!(send(&mut pair.server, before, &[0; 991], false), Poll::Ready(Ok(991)));
    assert_eq!(send(&mut pair.server, first, &vec![0; 100_000], false), Poll::Ready(Ok(ROOM - 1000)));
    assert_eq!(send(&mut pair.server, second, &[0; 10], false), Poll::Pending);
    assert_eq!(send(&mut pair.server, third, &[0; 10], false), Poll::Pending);
    let has_turn = |pair: &Pair, id| pair.server.streams.get(&id).is_some_and(|stream| stream.has_turn);
    pair.server.release(second);
    pair.talk();
    assert!(has_turn(&pair, third));
}

#[test]
fn what_is_given_up_is_reset_and_what_still_comes_of_it_is_no_mistake() {
    let mut pair = Pair::new();
    let id = pair.ask(false);
    pair.server.release(id);
    // Said before the client hears of it: a part of the body, and trailers.
    assert_eq!(send(&mut pair.client, id, &[0; 5000], false), Poll::Ready(Ok(5000)));
    pair.client.respond(id, true, |packer| packer.field(b"x", b"1")).unwrap();
    assert!(pass(&mut pair.client, &mut pair.server, usize::MAX));
    assert_eq!(pair.server.ended(), None);
    pair.talk();
    assert_eq!(pair.client.poll_broken(&mut cx(), id), Poll::Ready(Broken::Reset(Code::CANCEL)));
    let next = pair.ask(true);
    pair.server.respond(next, true, |packer| packer.status(204)).unwrap();
    pair.talk();
    assert_eq!(status(&mut pair.client, next), Some((204, true)));
}

#[test]
fn a_response_that_is_whole_needs_no_more_of_its_request_and_stays_readable() {
    let mut pair = Pair::new();
    let id = pair.ask(false);
    pair.server.respond(id, false, |packer| packer.status(413)).unwrap();
    assert_eq!(send(&mut pair.server, id, b"too large", true), Poll::Ready(Ok(9)));
    pair.server.release(id);
    pair.talk();
    assert_eq!(pair.client.poll_broken(&mut cx(), id), Poll::Ready(Broken::Reset(Code::NO_ERROR)));
    assert!(matches!(send(&mut pair.client, id, b"more", true), Poll::Ready(Err(Broken::Reset(Code::NO_ERROR)))));
    assert_eq!(status(&mut pair.client, id), Some((413, false)));
    assert_eq!(take(&mut pair.client, id), (b"too large".to_vec(), true));
}

#[test]
fn bodies_that_nobody_takes_do_not_use_up_the_connection() {
    let mut pair = Pair::new();
    // Six times the window of the connection, on streams that are given up with all of it untaken.
    for _ in 0..30 {
        let id = pair.ask(false);
        let mut sent = 0;
        while sent < 65_535
            && let Poll::Ready(more) = send(&mut pair.client, id, &vec![0; 65_535 - sent], false)
        {
            sent += more.unwrap();
            pair.talk();
        }
        assert_eq!(sent, 65_535);
        pair.server.release(id);
        pair.talk();
        pair.client.release(id);
    }
    assert_eq!((pair.client.ended(), pair.server.ended()), (None, None));
}

#[test]
fn a_large_head_arrives_whole_and_one_that_is_too_large_says_so() {
    for (size, is_good) in [(30_000, true), (50_000, false)] {
        let mut pair = Pair::new();
        let large = vec![b'x'; size];
        let large = |packer: &mut Packer<'_>| {
            get(packer);
            packer.field(b"x-large", &large);
        };
        let id = pair.client.request(false, true, large).unwrap();
        pair.talk();
        assert_eq!(pair.server.accept(), Some(id));
        let Poll::Ready(Ok((head, true))) = pair.server.poll_head(&mut cx(), id) else { panic!("no head") };
        assert_eq!(head.fault.is_none(), is_good);
        assert_eq!(head.fields.named(b"x-large").next().map(<[u8]>::len), is_good.then_some(size));
    }
}

#[test]
fn whoever_leaves_takes_what_is_under_way_and_nothing_after_it_was_heard() {
    let mut pair = Pair::new();
    let id = pair.ask(true);
    pair.server.retire();
    // On its way when the farewell comes.
    let late = pair.client.request(false, true, get).unwrap();
    pair.talk();
    assert_eq!(pair.server.accept(), Some(late));
    assert!(pair.client.is_spent() && pair.client.request(false, true, get).is_err());
    for id in [id, late] {
        pair.server.respond(id, true, |packer| packer.status(200)).unwrap();
        assert_eq!(pair.server.ended(), None);
        pair.server.release(id);
    }
    assert_eq!(pair.server.ended(), Some(Ended::Done));
    pair.talk();
    for id in [id, late] {
        assert_eq!(status(&mut pair.client, id), Some((200, true)));
        assert_eq!(pair.client.ended(), None);
        pair.client.release(id);
    }
    assert_eq!(pair.client.ended(), Some(Ended::Gone(Code::NO_ERROR)));
}

#[test]
fn requests_that_the_other_side_never_looked_at_are_told_from_others() {
    let mut client = Connection::new(Side::Client, TERMS);
    client.receive(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let (first, second) = (client.request(false, true, get).unwrap(), client.request(false, true, get).unwrap());
    client.receive(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert_eq!(client.poll_broken(&mut cx(), second), Poll::Ready(Broken::Over { unseen: true }));
    assert!(client.poll_broken(&mut cx(), first).is_pending());
    client.lost();
    assert_eq!(client.poll_broken(&mut cx(), first), Poll::Ready(Broken::Over { unseen: false }));
}

#[test]
fn more_requests_than_agreed_are_refused_and_those_after_them_are_not() {
    let mut pair = Pair::new();
    let ids: Vec<u32> = (0..9).map(|_| pair.client.request(false, true, get).unwrap()).collect();
    pair.talk();
    assert_eq!(pair.client.poll_broken(&mut cx(), ids[8]), Poll::Ready(Broken::Reset(Code::REFUSED_STREAM)));
    assert_eq!(std::iter::from_fn(|| pair.server.accept()).collect::<Vec<_>>(), ids[..8]);
    pair.server.respond(ids[0], true, |packer| packer.status(200)).unwrap();
    pair.talk();
    let next = pair.client.request(false, true, get).unwrap();
    pair.talk();
    assert_eq!(pair.server.accept(), Some(next), "one that is answered counts no more");
}

#[test]
fn whoever_gives_up_too_many_requests_at_once_is_told_to_calm_down() {
    let mut pair = Pair::new();
    for _ in 0..8 {
        let id = pair.client.request(false, true, get).unwrap();
        pair.client.release(id);
    }
    while pass(&mut pair.client, &mut pair.server, usize::MAX) {}
    assert!(matches!(pair.server.ended(), Some(Ended::Fault(Code::ENHANCE_YOUR_CALM, _))));
    assert_eq!(pair.server.accept(), None);
    let farewell = pair.server.output();
    assert!(farewell.ends_with(b"too many requests are given up at once"), "it says why: {farewell:?}");
    pair.talk();
    assert_eq!(pair.client.ended(), Some(Ended::Gone(Code::ENHANCE_YOUR_CALM)));
}

#[test]
fn a_side_that_does_not_read_its_answers_is_not_read_from() {
    let mut server = Pair::new().server;
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"01234567"].concat();
    for _ in 0..20_000 {
        if !server.may_receive() {
            break;
        }
        server.receive(&ping);
    }
    assert!(!server.may_receive() && server.output().len() < 70_000);
    assert!(frames(&mut server).iter().all(|(kind, flags, ..)| (*kind, *flags) == (6, 1)));
    assert!(server.may_receive());
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_read_from_either() {
    let mut pair = Pair::new();
    let mut asked = 0;
    while pair.server.may_receive() {
        let id = pair.client.request(false, true, get).unwrap();
        assert!(pass(&mut pair.client, &mut pair.server, usize::MAX));
        assert_eq!(pair.server.accept(), Some(id));
        pair.server.respond(id, true, |packer| packer.status(204)).unwrap();
        pair.server.release(id);
        asked += 1;
        assert!(asked < 20_000, "it goes on for ever");
    }
    assert!(pair.server.output().len() < 70_000);
    pair.talk();
    assert!(pair.server.may_receive());
}

#[test]
fn answers_that_were_read_count_no_more_though_more_is_always_to_be_sent() {
    let mut pair = Pair::with(Terms { stream_window: 1 << 24, connection_window: 1 << 24, ..TERMS });
    let id = pair.ask(true);
    pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"01234567"].concat();
    for round in 0..1000 {
        let _full = send(&mut pair.server, id, &vec![0; ROOM], false);
        (0..20).for_each(|_| pair.server.receive(&ping));
        assert!(pair.server.may_receive(), "{round}");
        pass(&mut pair.server, &mut pair.client, 16_384);
        take(&mut pair.client, id);
        pair.server.receive(pair.client.output());
        pair.client.sent(pair.client.output().len());
        assert!(!pair.server.output().is_empty());
    }
}

#[test]
fn whoever_gives_up_most_of_its_requests_is_asked_to_make_another_connection() {
    let mut pair = Pair::new();
    let mut given_up = 0;
    while !pair.client.is_spent() {
        let id = pair.ask(true);
        pair.client.release(id);
        pair.talk();
        pair.server.release(id);
        given_up += 1;
    }
    pair.talk();
    assert!((1000..2000).contains(&given_up), "{given_up}");
    assert_eq!((pair.server.ended(), pair.client.ended()), (Some(Ended::Done), Some(Ended::Gone(Code::NO_ERROR))));
}

#[test]
fn frames_that_are_of_no_use_are_taken_up_to_a_bound() {
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], b"01234567"].concat();
    let mut server = Pair::new().server;
    let mut taken = 0;
    while server.ended().is_none() {
        server.receive(&ping);
        server.sent(server.output().len());
        taken += 1;
    }
    assert!((50_000..80_000).contains(&taken), "{taken}");
    // Useful ones make up for them.
    let mut pair = Pair::new();
    let id = pair.ask(false);
    for _ in 0..200_000 {
        pair.server.receive(&ping);
        pair.server.receive(&[&[0, 0, 3, 0, 0][..], &id.to_be_bytes(), b"abc"].concat());
        take(&mut pair.server, id);
        pair.server.sent(pair.server.output().len());
    }
    assert_eq!(pair.server.ended(), None);
}

#[test]
fn no_memory_is_held_for_a_connection_without_requests() {
    let mut pair = Pair::with(Terms { streams: 100, ..TERMS });
    for _ in 0..3 {
        let ids: Vec<u32> = (0..100).map(|_| pair.ask(false)).collect();
        for id in ids {
            pair.server.respond(id, false, |packer| packer.status(200)).unwrap();
            assert_eq!(send(&mut pair.server, id, &[0; 5000], true), Poll::Ready(Ok(5000)));
            assert_eq!(send(&mut pair.client, id, &[0; 5000], true), Poll::Ready(Ok(5000)));
            pair.talk();
            assert_eq!((take(&mut pair.server, id).0.len(), take(&mut pair.client, id).0.len()), (5000, 5000));
            pair.server.release(id);
            pair.client.release(id);
        }
        pair.talk();
    }
    for side in [&pair.client, &pair.server] {
        assert!(side.out.capacity() <= 4096, "{}", side.out.capacity());
        assert!(side.streams.capacity() <= 32, "{}", side.streams.capacity());
        assert!(side.streams.is_empty() && side.turns.is_empty() && side.accepted.is_empty());
    }
}

#[test]
fn trailers_and_lengths_that_are_wrong_break_the_stream_and_not_the_connection() {
    let mut pair = Pair::new();
    let with_length = |packer: &mut Packer<'_>| {
        get(packer);
        packer.field(b"content-length", b"5");
    };
    let wrong = [
        (&b"123456"[..], false, "its body is longer than it says"),
        (b"1234", true, "its body is shorter than it says"),
    ];
    for (body, ends, words) in wrong {
        let id = pair.client.request(false, false, with_length).unwrap();
        pair.talk();
        assert_eq!(pair.server.accept(), Some(id));
        assert_eq!(send(&mut pair.client, id, body, ends), Poll::Ready(Ok(body.len())));
        pair.talk();
        assert_eq!(pair.server.poll_broken(&mut cx(), id), Poll::Ready(Broken::Wrong(Code::PROTOCOL_ERROR)));
        assert_eq!(pair.server.fault_of(id), Some(words));
        pair.server.release(id);
        pair.client.release(id);
    }
    let id = pair.ask(false);
    pair.client.respond(id, true, |packer| packer.pseudo(Pseudo::Path, b"/other")).unwrap();
    pair.talk();
    assert_eq!(pair.server.poll_broken(&mut cx(), id), Poll::Ready(Broken::Wrong(Code::PROTOCOL_ERROR)));
    assert_eq!(pair.server.fault_of(id), Some("its trailers have a pseudo-header field"));
    // Of a request for the head alone, a length has no body.
    let id = pair.client.request(true, true, get).unwrap();
    pair.talk();
    assert_eq!(pair.server.accept(), Some(id));
    pair.server
        .respond(id, true, |packer| {
            packer.status(200);
            packer.field(b"content-length", b"5");
        })
        .unwrap();
    pair.talk();
    assert_eq!(status(&mut pair.client, id), Some((200, true)));
    assert_eq!((pair.client.ended(), pair.server.ended()), (None, None));
}

#[test]
fn a_request_that_went_wrong_before_anybody_took_it_can_still_be_taken_to_be_told_of() {
    let mut pair = Pair::new();
    let wrong = pair.client.request(false, false, get).unwrap();
    pair.client.respond(wrong, true, |packer| packer.pseudo(Pseudo::Path, b"/other")).unwrap();
    let given_up = pair.client.request(false, false, get).unwrap();
    pair.client.release(given_up);
    let fine = pair.client.request(false, false, get).unwrap();
    while pass(&mut pair.client, &mut pair.server, usize::MAX) {}
    pair.server.receive(&[0, 0, 8, 6, 0, 0, 0, 0, 1]);
    pair.server.receive(&[0; 8]);
    assert!(matches!(pair.server.ended(), Some(Ended::Fault(Code::PROTOCOL_ERROR, _))));
    let told = [(wrong, "its trailers have a pseudo-header field"), (fine, "a ping comes on a stream")];
    for (id, words) in told {
        assert_eq!(pair.server.accept(), Some(id));
        let Poll::Ready(Ok((head, _))) = pair.server.poll_head(&mut cx(), id) else { panic!("its head is gone") };
        head.put_back();
        assert!(pair.server.broken(id).is_some());
        assert_eq!(pair.server.fault_of(id), Some(words));
        pair.server.release(id);
    }
    assert_eq!((pair.server.accept(), pair.server.streams()), (None, 0));
}

#[test]
fn a_field_that_is_known_is_known() {
    let mut pair = Pair::new();
    let id = pair.client.request(false, true, |packer| {
        get(packer);
        packer.field(b"Cookie", b"a=b");
    });
    let id = id.unwrap();
    pair.talk();
    pair.server.accept();
    let Poll::Ready(Ok((head, _))) = pair.server.poll_head(&mut cx(), id) else { panic!("no head") };
    assert_eq!(head.fields.first(Known::Cookie), Some(&b"a=b"[..]));
}
