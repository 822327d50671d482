//! What frames mean that came (RFC 9113 §5 and §6).

use super::Code;
use super::connection::{Connection, Leaving, Side};
use super::frame::{
    ACK, ENABLE_CONNECT_PROTOCOL, ENABLE_PUSH, END_HEADERS, END_STREAM, FrameHead, HEAD, INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE, MOST_PAYLOAD, MOST_WINDOW, PADDED, PING, SETTINGS, WITH_PRIORITY,
};
use super::head::{Head, SHORTER};
use super::reading::{Block, Data, Fatal, Result, protocol, size};
use super::stream::{Arrived, Broken, Stream};
use crate::message::framing;

/// How many frames of a stream in a row may carry nothing (CVE-2019-9518).
const MOST_EMPTY: u32 = 64;
/// In how many frames a header block may come, and how much larger than a list it may be (CVE-2024-27316).
const MOST_CONTINUATIONS: u32 = 64;
const MORE_OF_BLOCK: usize = 16 * 1024;
/// How many informational responses may wait to be taken.
const MOST_EARLY: usize = 128;
/// What is wrong with what comes on a stream whose other side has said that nothing more does.
const BEHIND_ITS_END: &str = "something comes behind its end";

impl Connection {
    /// Whether a stream was never begun by whoever may begin it.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        match (self.side, id % 2 == 1) {
            (Side::Server, true) => id > self.last,
            (Side::Client, true) => id >= self.next,
            // Nothing is pushed.
            (_, false) => true,
        }
    }

    pub(super) fn padded_data(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let data = unpad(head, payload)?;
        let is_wanted = self.begin_data(head, data.len())?;
        let more = payload.len() - data.len();
        self.credit(u32::try_from(more).unwrap_or(0));
        if let Some(stream) = self.streams.get_mut(&head.stream).filter(|_| is_wanted) {
            stream.owed += u32::try_from(more).unwrap_or(0);
        }
        let whole = Data { stream: head.stream, left: data.len(), end: head.has(END_STREAM), is_wanted };
        self.take_data(whole, &mut { data })
    }

    /// Begins a frame of DATA with so much that is no padding. Whether it is of use to anybody.
    pub(super) fn begin_data(&mut self, head: FrameHead, length: usize) -> Result<bool> {
        let FrameHead { stream: id, .. } = head;
        if id == 0 {
            return protocol("data comes on no stream");
        }
        if self.is_idle(id) {
            return protocol("data comes on a stream that was not begun");
        }
        if self.budget.waste(HEAD) {
            return Err(Fatal(Code::ENHANCE_YOUR_CALM, "too much of what comes is of no use"));
        }
        self.budget.earn(length);
        self.recv_window -= head.length as i64;
        if self.recv_window < 0 {
            return Err(Fatal(Code::FLOW_CONTROL_ERROR, "more data comes than the connection's window has room for"));
        }
        let ends = head.has(END_STREAM);
        let wrong = match self.streams.get_mut(&id) {
            None => {
                if !self.is_forgotten(id) {
                    self.wrong(id, Code::STREAM_CLOSED, BEHIND_ITS_END);
                }
                return Ok(false);
            }
            Some(stream) if stream.broken.is_some() => return Ok(false),
            Some(stream) => {
                stream.recv_window -= head.length as i64;
                stream.came += length as u64;
                stream.empty = if length == 0 && !ends { stream.empty + 1 } else { 0 };
                if stream.recv_over {
                    Some((Code::STREAM_CLOSED, BEHIND_ITS_END))
                } else if stream.recv_window < 0 {
                    Some((Code::FLOW_CONTROL_ERROR, "more of its body comes than its window has room for"))
                } else if !stream.is_headed {
                    Some((Code::PROTOCOL_ERROR, "its body comes before its head"))
                } else if stream.is_bodiless && stream.came > 0 {
                    Some((Code::PROTOCOL_ERROR, "it has a body where there can be none"))
                } else if stream.declared.is_some_and(|declared| stream.came > declared) {
                    Some((Code::PROTOCOL_ERROR, "its body is longer than it says"))
                } else if stream.empty > MOST_EMPTY {
                    Some((Code::ENHANCE_YOUR_CALM, "its body comes in frames that carry nothing"))
                } else {
                    None
                }
            }
        };
        if let Some((code, words)) = wrong {
            self.wrong(id, code, words);
        }
        Ok(wrong.is_none())
    }

    /// Takes what came of a frame of DATA.
    pub(super) fn take_data(&mut self, data: Data, bytes: &mut &[u8]) -> Result<()> {
        let (now, rest) = bytes.split_at(data.left.min(bytes.len()));
        *bytes = rest;
        let left = data.left - now.len();
        let stream = self.streams.get_mut(&data.stream).filter(|stream| data.is_wanted && stream.broken.is_none());
        match stream {
            Some(stream) if !now.is_empty() => {
                stream.keep(now);
                stream.wake();
            }
            Some(_) => {}
            None => self.credit(u32::try_from(now.len()).unwrap_or(0)),
        }
        self.reading.data = (left > 0).then_some(Data { left, ..data });
        if left == 0 && data.end && data.is_wanted {
            self.received_all(data.stream);
        }
        Ok(())
    }

    /// Nothing more comes on a stream.
    fn received_all(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else { return };
        if stream.declared.is_some_and(|declared| declared != stream.came) {
            return self.wrong(id, Code::PROTOCOL_ERROR, SHORTER);
        }
        stream.recv_over = true;
        stream.wake();
        self.side_over(id);
    }

    pub(super) fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let FrameHead { stream: id, .. } = head;
        if id % 2 == 0 {
            return protocol("a head comes on a stream that is none of a client's");
        }
        let mut block = unpad(head, payload)?;
        let mut depends = None;
        if head.has(WITH_PRIORITY) {
            let Some((priority, rest)) = block.split_first_chunk::<5>() else {
                return size("a head is too short for its priority");
            };
            block = rest;
            depends = Some(dependency(*priority));
        }
        // Nothing depends on itself (RFC 7540 §5.3.1).
        if depends == Some(id) {
            return protocol("a stream depends on itself");
        }
        let end = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.header_block(id, end, block);
        }
        self.reading.block = Some(Block { stream: id, end, bytes: block.to_vec(), frames: 0 });
        Ok(())
    }

    pub(super) fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let most = self.terms.header_list as usize + MORE_OF_BLOCK;
        let Some(block) = &mut self.reading.block else {
            return protocol("a header block goes on that was not begun");
        };
        block.bytes.extend_from_slice(payload);
        block.frames += 1;
        if block.frames > MOST_CONTINUATIONS || block.bytes.len() > most {
            return Err(Fatal(Code::ENHANCE_YOUR_CALM, "a header block does not come to its end"));
        }
        match self.reading.block.take_if(|_| head.has(END_HEADERS)) {
            Some(Block { stream, end, bytes, .. }) => self.header_block(stream, end, &bytes),
            None => Ok(()),
        }
    }

    /// Takes a header block that is whole. It has to be unpacked whoever it is for.
    fn header_block(&mut self, id: u32, end: bool, block: &[u8]) -> Result<()> {
        let most = self.terms.header_list as usize;
        let mut head = Head::spare();
        let unpacked = self.decoder.decode(block, |name, value| head.push(name, value, most));
        if let Err(fault) = unpacked {
            return Err(Fatal(Code::COMPRESSION_ERROR, fault.0));
        }
        match (self.side, self.streams.contains_key(&id)) {
            (Side::Client, true) => self.responded(id, head, end),
            (Side::Server, true) => self.trailers(id, head, end),
            (_, false) if self.is_forgotten(id) => head.put_back(),
            (Side::Server, false) if self.is_idle(id) => self.requested(id, head, end),
            (Side::Client, false) if self.is_idle(id) => return protocol("a response comes to no request"),
            (_, false) => return Err(Fatal(Code::STREAM_CLOSED, "a head comes on a stream that was over")),
        }
        Ok(())
    }

    fn requested(&mut self, id: u32, mut head: Box<Head>, end: bool) {
        self.last = id;
        if let Leaving::Last(last) = self.leaving
            && id > last
        {
            // It was told that this one is not looked at.
            return head.put_back();
        }
        let most = self.terms.streams;
        if self.open >= most || self.streams.len() >= most as usize * 2 + 8 {
            head.put_back();
            return match self.budget.wrong() {
                true => self.fail(Code::ENHANCE_YOUR_CALM, "far more requests are made than agreed"),
                false => self.reset(id, Code::REFUSED_STREAM),
            };
        }
        let mut stream = Stream::new(self.terms.first_window(), self.peer.stream_window);
        // One that is none is told by whoever reads it.
        stream.declared = framing::content_length(&head.fields).ok().flatten();
        (stream.is_headed, stream.recv_over) = (true, end);
        if end && stream.declared.is_some_and(|declared| declared > 0) {
            head.misses_body();
        }
        stream.head = Some(Arrived { head, end });
        self.streams.insert(id, stream);
        self.open += 1;
        self.accepted.push_back(id);
    }

    fn responded(&mut self, id: u32, head: Box<Head>, end: bool) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else {
            return head.put_back();
        };
        if stream.is_headed {
            return self.trailers(id, head, end);
        }
        let status = if head.fault.is_some() { None } else { head.status() };
        match status {
            // What is too large or malformed is told by whoever reads it.
            Some(100..=199) if end || stream.early.len() >= MOST_EARLY => {
                self.wrong(id, Code::PROTOCOL_ERROR, "informational responses come without a final one");
            }
            Some(100..=199) => {
                stream.early.push_back(head);
                stream.wake();
            }
            _ => {
                stream.is_headed = true;
                stream.is_bodiless = stream.to_head || matches!(status, Some(204 | 304));
                let declared = framing::content_length(&head.fields).ok().flatten();
                stream.declared = declared.filter(|_| !stream.is_bodiless);
                stream.head = Some(Arrived { head, end });
                stream.wake();
                if end {
                    self.received_all(id);
                }
            }
        }
    }

    fn trailers(&mut self, id: u32, mut head: Box<Head>, end: bool) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else {
            return head.put_back();
        };
        if stream.recv_over {
            self.wrong(id, Code::STREAM_CLOSED, BEHIND_ITS_END);
        } else if !end {
            self.wrong(id, Code::PROTOCOL_ERROR, "something is to follow its trailers");
        } else if let Some(words) = head.fault_of_trailers() {
            self.wrong(id, Code::PROTOCOL_ERROR, words);
        } else {
            stream.trailers = Some(Box::new(std::mem::take(&mut head.fields)));
            self.received_all(id);
        }
        head.put_back();
    }

    pub(super) fn priority(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        if head.stream == 0 {
            return protocol("a priority is of no stream");
        }
        match payload.first_chunk::<5>().filter(|_| payload.len() == 5) {
            Some(priority) if dependency(*priority) == head.stream => protocol("a stream depends on itself"),
            Some(_) => Ok(()),
            None => size("a priority has a wrong size"),
        }
    }

    pub(super) fn rst_stream(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let code = Code(u32::from_be_bytes(sized(payload, "a reset has a wrong size")?));
        if head.stream == 0 || self.is_idle(head.stream) {
            return protocol("a stream is given up that was not begun");
        }
        let Some(stream) = self.streams.get(&head.stream) else { return Ok(()) };
        let (is_new, was_open) = (!stream.is_held, !stream.is_closed());
        self.break_stream(head.stream, Broken::Reset(code));
        if was_open && self.side == Side::Server && self.budget.wrong() {
            // Whoever gives up most of what it asks for may do so for good reasons, and make another connection.
            self.retire();
        }
        if is_new {
            self.budget.given_up += 1;
            if self.budget.given_up > self.terms.given_up {
                return Err(Fatal(Code::ENHANCE_YOUR_CALM, "too many requests are given up at once"));
            }
        }
        Ok(())
    }

    pub(super) fn settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        if head.stream != 0 {
            return protocol("settings come on a stream");
        }
        if head.has(ACK) {
            return if payload.is_empty() { Ok(()) } else { size("an acknowledgement has settings") };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return size("settings have a wrong size");
        }
        let is_first = !std::mem::replace(&mut self.peer.is_settled, true);
        if is_first {
            // Without a word on it, there is no limit (§6.5.2).
            self.peer.streams = u32::MAX;
        }
        for [a, b, c, d, e, f] in settings {
            self.set(u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]))?;
        }
        if is_first && self.peer.streams == 0 && self.side == Side::Client {
            // Others would be told the same: each request would make a connection that is of no use (§5.1.2).
            return Err(Fatal(Code::NO_ERROR, "its settings allow no request at all"));
        }
        self.reply(SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    fn set(&mut self, name: u16, number: u32) -> Result<()> {
        match name {
            ENABLE_PUSH if number > 1 || number == 1 && self.side == Side::Client => {
                protocol("push is set to what it cannot be")
            }
            MAX_CONCURRENT_STREAMS => {
                self.peer.streams = number;
                Ok(())
            }
            INITIAL_WINDOW_SIZE => self.set_window(i64::from(number)),
            MAX_FRAME_SIZE if !(MOST_PAYLOAD as u32..1 << 24).contains(&number) => {
                protocol("the size of frames is set to what it cannot be")
            }
            ENABLE_CONNECT_PROTOCOL if number > 1 || number == 0 && self.peer.takes_connect => {
                protocol("extended CONNECT is set to what it cannot be")
            }
            ENABLE_CONNECT_PROTOCOL => {
                self.peer.takes_connect = number == 1;
                Ok(())
            }
            // What is remembered of ours is nothing, and our frames and heads are small.
            _ => Ok(()),
        }
    }

    /// Changes the windows of all streams by as much as what they begin with changes (§6.9.2).
    fn set_window(&mut self, window: i64) -> Result<()> {
        if window > MOST_WINDOW {
            return Err(Fatal(Code::FLOW_CONTROL_ERROR, "a window is set to what it cannot be"));
        }
        let more = window - std::mem::replace(&mut self.peer.stream_window, window);
        for stream in self.streams.values_mut() {
            stream.send_window += more;
            if stream.send_window > MOST_WINDOW {
                return Err(Fatal(Code::FLOW_CONTROL_ERROR, "a window becomes larger than it can be"));
            }
            if more > 0 {
                stream.wake();
            }
        }
        Ok(())
    }

    pub(super) fn ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let payload: [u8; 8] = sized(payload, "a ping has a wrong size")?;
        if head.stream != 0 {
            return protocol("a ping comes on a stream");
        }
        match head.has(ACK) {
            true => self.heard(payload),
            false => self.reply(PING, ACK, 0, &payload),
        }
        Ok(())
    }

    pub(super) fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        if head.stream != 0 {
            return protocol("a farewell comes on a stream");
        }
        let Some(([a, b, c, d, e, f, g, h], _words)) = payload.split_first_chunk::<8>() else {
            return size("a farewell has a wrong size");
        };
        let last = u32::from_be_bytes([a & 0x7f, *b, *c, *d]);
        if self.peer.gone.is_some_and(|(before, _)| last > before) {
            return protocol("a farewell takes back what was said in the one before");
        }
        self.peer.gone = Some((last, Code(u32::from_be_bytes([*e, *f, *g, *h]))));
        if self.side == Side::Client {
            let unseen: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
            unseen.into_iter().for_each(|id| self.break_stream(id, Broken::Over { unseen: true }));
        }
        Ok(())
    }

    pub(super) fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<()> {
        let more: [u8; 4] = sized(payload, "a window update has a wrong size")?;
        let more = i64::from(u32::from_be_bytes(more) & 0x7fff_ffff);
        let FrameHead { stream: id, .. } = head;
        if id == 0 {
            if more == 0 {
                return protocol("a window grows by nothing");
            }
            self.send_window += more;
            if self.send_window > MOST_WINDOW {
                return Err(Fatal(Code::FLOW_CONTROL_ERROR, "a window becomes larger than it can be"));
            }
            self.offer();
            return Ok(());
        }
        if self.is_idle(id) {
            return protocol("a window grows of a stream that was not begun");
        }
        // Of one that is over, nothing is to be done (§5.1).
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) else { return Ok(()) };
        stream.send_window += more;
        if more == 0 {
            self.wrong(id, Code::PROTOCOL_ERROR, "its window grows by nothing");
        } else if stream.send_window > MOST_WINDOW {
            self.wrong(id, Code::FLOW_CONTROL_ERROR, "its window becomes larger than it can be");
        } else {
            stream.wake();
        }
        Ok(())
    }
}

/// The payload without what fills it (§6.1, §6.2).
fn unpad(head: FrameHead, payload: &[u8]) -> Result<&[u8]> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let Some((padding, rest)) = payload.split_first() else { return size("a padded frame is empty") };
    match rest.len().checked_sub(usize::from(*padding)) {
        Some(length) => Ok(rest.get(..length).unwrap_or_default()),
        None => protocol("a frame has more padding than there is room for"),
    }
}

fn dependency([a, b, c, d, _]: [u8; 5]) -> u32 {
    u32::from_be_bytes([a & 0x7f, b, c, d])
}

fn sized<const SIZE: usize>(payload: &[u8], words: &'static str) -> Result<[u8; SIZE]> {
    payload.try_into().map_or_else(|_| size(words), Ok)
}
