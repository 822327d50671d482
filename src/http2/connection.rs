//! A connection: its streams, what it has to say, and how it ends.

use std::collections::VecDeque;
use std::task::Waker;

use rustc_hash::FxHashMap;

use super::frame::{
    ENABLE_CONNECT_PROTOCOL, ENABLE_PUSH, FIRST_WINDOW, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE, MOST_WINDOW, PING, PREFACE, RST_STREAM, WINDOW_UPDATE, put, put_goaway, put_settings,
};
use super::hpack::decoder::Decoder;
use super::reading::Reading;
use super::stream::{Broken, Stream};
use super::{Code, frame};

/// How much is kept to be sent of bodies; heads and answers to frames come on top.
pub(super) const ROOM: usize = 64 * 1024;
/// How much of answers to frames and requests may wait to be read by the other side before nothing more is read of it.
const MOST_REPLIES: usize = 64 * 1024;
/// What is kept of a buffer for the next time.
const LITTLE: usize = 4096;
/// For how many streams there is always room.
const FEW: usize = 16;
/// How many streams that a server gave up are remembered, at least and at most: what still comes on them is no mistake
/// (RFC 9113 §5.1).
const REMEMBERED: (usize, usize) = (64, 4096);
/// What is sent to learn that the other side has read all before it.
const RETIRING: [u8; 8] = *b"retiring";

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Requests come in.
    Server,
    /// Requests go out.
    Client,
}

/// What the other side is told, and held to.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How many requests it may make at once.
    pub streams: u32,
    /// How large a header list may be, as the RFC counts (§6.5.2).
    pub header_list: u32,
    /// How much of a body it may send ahead on one stream, at most. It begins with 64 KiB, and gets more as long as what it
    /// sends is taken at once: what nobody takes is to be held.
    pub stream_window: u32,
    /// The same on all of them together.
    pub connection_window: u32,
    /// How many requests it may give up before they were looked at (CVE-2023-44487).
    pub given_up: u32,
}

impl Terms {
    /// How much of a body the other side may send ahead on a stream before anything of it was taken.
    pub(super) fn first_window(&self) -> u32 {
        self.stream_window.min(FIRST_WINDOW as u32)
    }
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The other side broke the protocol, or asked too much: the words say how.
    Fault(Code, &'static str),
    /// This side has ended it.
    Done,
    /// The other side went away, with this code.
    Gone(Code),
}

/// How far this side is with going away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The other side was told, and may have made requests before it heard.
    Told,
    /// It has heard: of its requests, this is the last that is taken.
    Last(u32),
}

/// What the other side has asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Whether its settings have come.
    pub(super) is_settled: bool,
    pub(super) streams: u32,
    pub(super) stream_window: i64,
    pub(super) takes_connect: bool,
    /// The last of our streams that it has looked at, and its code, once it has said that it goes away.
    pub(super) gone: Option<(u32, Code)>,
}

/// A connection of HTTP/2.
#[derive(Debug)]
pub struct Connection {
    pub(super) side: Side,
    pub(super) terms: Terms,
    pub(super) reading: Reading,
    pub(super) decoder: Decoder,
    /// What is to be sent, from `sent` on.
    pub(super) out: Vec<u8>,
    sent: usize,
    /// How much of it are answers to frames, and heads of responses: of what stands behind `mark`, and of what stands before
    /// it, at most.
    pub(super) replies: usize,
    replies_before: usize,
    mark: usize,
    /// Whether no header block was sent yet.
    pub(super) is_fresh: bool,
    pub(super) streams: FxHashMap<u32, Stream>,
    /// Requests that came and were not taken yet.
    pub(super) accepted: VecDeque<u32>,
    /// How many streams are open, as the other side counts them.
    pub(super) open: u32,
    /// The last stream of the other side, and the next of this one.
    pub(super) last: u32,
    pub(super) next: u32,
    pub(super) recv_window: i64,
    pub(super) owed: u32,
    pub(super) send_window: i64,
    pub(super) peer: Peer,
    /// Those that wait for room, in their turn.
    pub(super) turns: VecDeque<u32>,
    /// How many of them have been told that it is their turn, and have not made use of it yet.
    granted: usize,
    pub(super) leaving: Leaving,
    pub(super) ended: Option<Ended>,
    /// Streams that this side has given up lately, if it is a server.
    forgotten: VecDeque<u32>,
    pub(super) budget: Budget,
    driver: Option<Waker>,
    /// Whether it looks at everything anyway, now or soon.
    is_driven: bool,
}

/// What the other side may still do that is of no use to anybody.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// Requests that it gave up before they were looked at, less those that were answered.
    pub(super) given_up: u32,
    /// Streams that this side had to give up for what it did, less those that came to a good end.
    wrongs: u32,
    /// Bytes that were more than heads and bodies, less what those have earned.
    waste: u32,
}

/// How many streams may end badly before the connection does (CVE-2025-8671).
const MOST_WRONGS: u32 = 1024;
/// How many bytes may be of no use.
const MOST_WASTE: u32 = 1024 * 1024;
/// How many of them each useful byte makes good.
const EARNED: u32 = 8;

impl Budget {
    /// Counts bytes that are of no use by themselves. Whether they are too many.
    pub(super) fn waste(&mut self, bytes: usize) -> bool {
        self.waste = self.waste.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.waste > MOST_WASTE
    }

    /// Counts bytes of heads and bodies.
    pub(super) fn earn(&mut self, bytes: usize) {
        let earned = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_mul(EARNED);
        self.waste = self.waste.saturating_sub(earned);
    }

    /// Counts a stream that this side gives up. Whether there were too many.
    pub(super) fn wrong(&mut self) -> bool {
        self.wrongs = self.wrongs.saturating_add(1);
        self.wrongs > MOST_WRONGS
    }

    /// Counts a stream that came to a good end.
    fn good(&mut self) {
        self.wrongs = self.wrongs.saturating_sub(1);
        self.given_up = self.given_up.saturating_sub(1);
    }
}

impl Connection {
    /// A connection on which nothing was said yet. What this side says first waits to be sent.
    #[must_use]
    pub fn new(side: Side, terms: Terms) -> Self {
        let mut out = Vec::new();
        let windows = (INITIAL_WINDOW_SIZE, terms.first_window());
        let lists = (MAX_HEADER_LIST_SIZE, terms.header_list);
        match side {
            Side::Client => {
                out.extend_from_slice(PREFACE);
                put_settings(&[(ENABLE_PUSH, 0), windows, lists], &mut out);
            }
            Side::Server => {
                let streams = (MAX_CONCURRENT_STREAMS, terms.streams);
                put_settings(&[streams, windows, lists, (ENABLE_CONNECT_PROTOCOL, 1)], &mut out);
            }
        }
        let recv_window = i64::from(terms.connection_window).min(MOST_WINDOW);
        let more = u32::try_from(recv_window - FIRST_WINDOW).unwrap_or(0);
        if more > 0 {
            put(WINDOW_UPDATE, 0, 0, &more.to_be_bytes(), &mut out);
        }
        Self {
            side,
            terms,
            reading: Reading::new(side),
            decoder: Decoder::default(),
            out,
            sent: 0,
            replies: 0,
            replies_before: 0,
            mark: 0,
            is_fresh: true,
            streams: FxHashMap::default(),
            accepted: VecDeque::new(),
            open: 0,
            last: 0,
            next: 1,
            recv_window,
            owed: 0,
            send_window: FIRST_WINDOW,
            peer: Peer {
                is_settled: false,
                // A server has said nothing yet of how many it takes (§6.5.2): one is sure to be.
                streams: 1,
                stream_window: FIRST_WINDOW,
                takes_connect: false,
                gone: None,
            },
            turns: VecDeque::new(),
            granted: 0,
            leaving: Leaving::No,
            ended: None,
            forgotten: VecDeque::new(),
            budget: Budget::default(),
            driver: None,
            is_driven: false,
        }
    }

    /// Has something go out before all else that this side says; nothing was sent yet.
    pub fn precede(&mut self, bytes: &[u8]) {
        self.out.splice(..0, bytes.iter().copied());
    }

    /// What is to be sent next.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// So much of it was sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent >= self.mark {
            self.replies_before = std::mem::take(&mut self.replies);
            self.mark = self.out.len();
        }
        if self.sent >= self.out.len() {
            (self.sent, self.mark, self.replies_before) = (0, 0, 0);
            self.out.clear();
            if self.streams.is_empty() {
                self.out.shrink_to(LITTLE);
                self.streams.shrink_to(FEW);
            }
        } else if self.sent > ROOM {
            self.out.drain(..self.sent);
            self.mark -= self.sent;
            self.sent = 0;
        }
        self.offer();
    }

    /// Whether more may be read: a side that does not read what it is answered is not read from either.
    #[must_use]
    pub fn may_receive(&self) -> bool {
        self.replies + self.replies_before < MOST_REPLIES && self.ended.is_none()
    }

    /// Whoever drives it begins to look at what there is to be done.
    pub fn begin_turn(&mut self) {
        self.is_driven = true;
    }

    /// Whoever drives it has seen all, and hears of what is to be done from here on.
    pub fn end_turn(&mut self, waker: &Waker) {
        self.is_driven = false;
        match &mut self.driver {
            Some(own) => own.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Has whoever drives it look at it again.
    pub fn stir(&mut self) {
        if !self.is_driven
            && let Some(driver) = &self.driver
        {
            // Once is enough.
            self.is_driven = true;
            driver.wake_by_ref();
        }
    }

    /// Writes a frame that answers another.
    pub(super) fn reply(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.replies += frame::HEAD + payload.len();
        put(kind, flags, stream, payload, &mut self.out);
        self.stir();
    }

    /// A request that came. Whoever takes it has to [release](Self::release) it in the end.
    pub fn accept(&mut self) -> Option<u32> {
        let id = self.accepted.pop_front()?;
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_held = true;
        }
        Some(id)
    }

    /// Whether it is over, once all of [`Connection::output`] was sent, and why.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let has_left = matches!(self.leaving, Leaving::Last(_));
        match (self.ended, self.peer.gone) {
            (Some(ended), _) => Some(ended),
            (None, Some((_, code))) if self.streams.is_empty() => Some(Ended::Gone(code)),
            (None, _) if has_left && self.streams.is_empty() => Some(Ended::Done),
            (None, _) => None,
        }
    }

    /// What the other side did wrong, in words, if that is why it is over.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        match self.ended {
            Some(Ended::Fault(_, words)) => Some(words),
            Some(Ended::Done | Ended::Gone(_)) | None => None,
        }
    }

    /// Why nothing more comes or goes on a stream, if so.
    #[must_use]
    pub fn broken(&self, id: u32) -> Option<Broken> {
        self.streams.get(&id)?.broken
    }

    /// What the other side did wrong on a stream, in words, or else on the connection, if that is why it is over.
    #[must_use]
    pub fn fault_of(&self, id: u32) -> Option<&'static str> {
        self.streams.get(&id).and_then(|stream| stream.fault).or_else(|| self.fault())
    }

    /// The code that the other side went away with, if it has said that it does.
    #[must_use]
    pub fn farewell(&self) -> Option<Code> {
        self.peer.gone.map(|(_, code)| code)
    }

    /// How many streams there are.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Tells the other side that no further requests are taken; those that it made before it heard of that are still.
    pub fn retire(&mut self) {
        if self.leaving == Leaving::No && self.ended.is_none() {
            self.leaving = Leaving::Told;
            put_goaway(MOST_WINDOW as u32, Code::NO_ERROR, "", &mut self.out);
            put(PING, 0, 0, &RETIRING, &mut self.out);
            self.stir();
        }
    }

    /// A ping was answered.
    pub(super) fn heard(&mut self, payload: [u8; 8]) {
        if self.leaving == Leaving::Told && payload == RETIRING {
            self.leaving = Leaving::Last(self.last);
            put_goaway(self.last, Code::NO_ERROR, "", &mut self.out);
        }
    }

    /// Ends it now, whatever is under way.
    pub fn end(&mut self) {
        self.finish(Ended::Done, Code::NO_ERROR, "");
    }

    /// Ends it for what the other side did.
    pub(super) fn fail(&mut self, code: Code, words: &'static str) {
        self.finish(Ended::Fault(code, words), code, words);
    }

    fn finish(&mut self, ended: Ended, code: Code, words: &'static str) {
        if self.ended.is_none() {
            self.ended = Some(ended);
            let last = match self.leaving {
                Leaving::Last(last) => last,
                Leaving::No | Leaving::Told => self.last,
            };
            put_goaway(last, code, words, &mut self.out);
            self.break_off();
        }
    }

    /// Nothing more comes from the other side, and nothing reaches it.
    pub fn lost(&mut self) {
        self.ended.get_or_insert(Ended::Gone(self.peer.gone.map_or(Code::NO_ERROR, |(_, code)| code)));
        self.break_off();
    }

    /// Requests that were not taken yet can still be, by whoever says what became of them.
    fn break_off(&mut self) {
        self.open = 0;
        for stream in self.streams.values_mut() {
            // What has come to its end stays what it is.
            if !(stream.recv_over && stream.send_over) {
                stream.fail(Broken::Over { unseen: false });
            }
        }
        self.stir();
    }

    /// Gives up a stream for what the other side did on it, which the words say.
    pub(super) fn wrong(&mut self, id: u32, code: Code, words: &'static str) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.fault = Some(words);
        }
        if self.budget.wrong() {
            return self.fail(Code::ENHANCE_YOUR_CALM, "too many streams had to be given up");
        }
        self.reset(id, code);
        self.break_stream(id, Broken::Wrong(code));
    }

    /// Says that a stream is given up, and remembers it.
    pub(super) fn reset(&mut self, id: u32, code: Code) {
        self.reply(RST_STREAM, 0, id, &code.0.to_be_bytes());
        if self.side == Side::Client {
            return;
        }
        // A client may have all it is allowed under way, and as many that it has ended before it heard of this.
        let (least, most) = REMEMBERED;
        if self.forgotten.len() >= (self.terms.streams as usize).saturating_mul(2).clamp(least, most) {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(id);
    }

    /// Whether this side has given up a stream that is no more, or never took it, so that the other may not have known when it
    /// sent something. A client does not ask which of its streams those are: it may give up any number of them before the
    /// server hears of the first, and what comes on one that is over does no harm. Others use the connection as well.
    pub(super) fn is_forgotten(&self, id: u32) -> bool {
        let is_late = matches!(self.leaving, Leaving::Last(last) if id > last && id <= self.last);
        match self.side {
            Side::Client => !self.is_idle(id),
            Side::Server => is_late || self.forgotten.contains(&id),
        }
    }

    /// Marks a stream as given up. Whoever has it hears of it, or whoever takes it; one that the other side gave up before
    /// anybody had it is no more.
    pub(super) fn break_stream(&mut self, id: u32, broken: Broken) {
        self.take_turn(id);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let was_closed = stream.is_closed();
        // What has come stays there to be taken.
        stream.fail(broken);
        let is_of_no_use = !stream.is_held && matches!(broken, Broken::Reset(_));
        if !was_closed {
            self.open = self.open.saturating_sub(1);
        }
        if is_of_no_use {
            self.accepted.retain(|accepted| *accepted != id);
            let waiting = self.streams.remove(&id).map_or(0, |mut stream| stream.drop_waiting());
            self.credit(waiting);
        }
        self.offer();
    }

    /// One side of a stream has said all; with the other, it is over.
    pub(super) fn side_over(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.broken.is_none()
            && stream.recv_over
            && stream.send_over
        {
            self.open = self.open.saturating_sub(1);
            self.budget.good();
        }
    }

    /// Leaves a stream to itself: what came of it is of no more use, and it is given up if it is not over.
    pub fn release(&mut self, id: u32) {
        self.take_turn(id);
        let Some(mut stream) = self.streams.remove(&id) else { return };
        if let Some(arrived) = stream.head.take() {
            arrived.head.put_back();
        }
        let waiting = stream.drop_waiting();
        self.credit(waiting);
        if !stream.is_closed() {
            self.open = self.open.saturating_sub(1);
            // A response that is whole needs no more of its request (RFC 9113 §8.1).
            let is_answered = stream.send_over && self.side == Side::Server;
            if self.ended.is_none() {
                self.reset(id, if is_answered { Code::NO_ERROR } else { Code::CANCEL });
            }
        }
        self.offer();
        if self.streams.is_empty() {
            // It may be over now.
            self.stir();
        }
    }

    /// So much that came will not be asked for again: the other side may send as much more on the connection.
    pub(super) fn credit(&mut self, bytes: u32) {
        self.owed += bytes;
        if self.owed > 0 && u64::from(self.owed) * 2 >= u64::from(self.terms.connection_window) && self.ended.is_none()
        {
            self.recv_window += i64::from(self.owed);
            let owed = std::mem::take(&mut self.owed);
            put(WINDOW_UPDATE, 0, 0, &owed.to_be_bytes(), &mut self.out);
            self.stir();
        }
    }

    /// Has those that wait for anything on a stream look around.
    pub fn wake_streams(&mut self) {
        self.streams.values_mut().for_each(Stream::wake);
    }

    /// Tells those that wait for room that there is some, in their turn: as many as there are frames that it has room for,
    /// and one if it has not even that.
    pub(super) fn offer(&mut self) {
        let room = self.room();
        let most = (room / frame::MOST_PAYLOAD).max(usize::from(room > 0));
        while self.granted < most
            && let Some(id) = self.turns.pop_front()
        {
            if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.waits) {
                (stream.waits, stream.has_turn) = (false, true);
                stream.wake();
                self.granted += 1;
            }
        }
    }

    /// Takes a stream's turn from it, if it has it.
    pub(super) fn take_turn(&mut self, id: u32) -> bool {
        let has_turn = self.streams.get_mut(&id).is_some_and(|stream| std::mem::take(&mut stream.has_turn));
        self.granted = self.granted.saturating_sub(has_turn.into());
        has_turn
    }

    /// How much of bodies can be handed over now.
    pub(super) fn room(&self) -> usize {
        let window = usize::try_from(self.send_window).unwrap_or(0);
        window.min((ROOM + self.sent).saturating_sub(self.out.len()))
    }
}
