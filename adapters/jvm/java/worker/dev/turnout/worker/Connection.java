package dev.turnout.worker;

import dev.turnout.spi.Batch;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.CancelledKeyException;
import java.nio.channels.ClosedSelectorException;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.SocketChannel;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

/** One peer. Its thread reads and, when the peer is slow to take answers, writes; model threads never wait for a peer. */
final class Connection implements Runnable, FrameReader.Sink {
    private final Worker worker;
    private final SocketChannel channel;
    private final Selector selector;
    private final SelectionKey key;
    private final Outbox outbox;
    private final FrameReader reader = new FrameReader();
    private final Map<Long, Work> waiting = new ConcurrentHashMap<>();
    private boolean greeted;
    private boolean ending;

    Connection(Worker worker, SocketChannel channel) throws IOException {
        this.worker = worker;
        this.channel = channel;
        this.outbox = new Outbox(channel, worker.byteBudget());
        this.selector = Selector.open();
        channel.configureBlocking(false);
        this.key = channel.register(selector, SelectionKey.OP_READ);
    }

    @Override
    public void run() {
        try {
            while (!ending) {
                selector.selectedKeys().clear();
                selector.select();
                if (key.isWritable()) {
                    flush();
                }
                if (key.isReadable() && !reader.readOnce(channel, this)) {
                    break;
                }
            }
        } catch (BadFrame error) {
            System.err.println("connection closed: " + error.getMessage());
        } catch (IOException | CancelledKeyException | ClosedSelectorException error) {
            // The peer is gone: the ordinary end of a connection.
        } finally {
            close();
        }
    }

    /** Adds an answer that {@link #flush} sends. */
    void add(ByteBuffer frame) {
        if (!outbox.add(frame)) {
            System.err.println("connection closed: the peer does not read its answers");
            disconnect();
        }
    }

    /** Sends what can be sent now; the rest follows from this connection's own thread. */
    void flush() {
        try {
            // Under the outbox's lock, lest another thread's older finding overwrites this one.
            synchronized (outbox) {
                int wanted = outbox.flush() ? SelectionKey.OP_READ : SelectionKey.OP_READ | SelectionKey.OP_WRITE;
                if (key.interestOps() != wanted) {
                    key.interestOps(wanted);
                    selector.wakeup();
                }
            }
        } catch (IOException | CancelledKeyException error) {
            disconnect();
        }
    }

    /** Sends one answer. */
    void send(ByteBuffer frame) {
        add(frame);
        flush();
    }

    /** Whether every answer has gone out. */
    boolean flushed() {
        try {
            return !channel.isOpen() || outbox.flush();
        } catch (IOException error) {
            return true;
        }
    }

    /** Ends the connection from another thread. */
    void disconnect() {
        try {
            channel.close();
        } catch (IOException error) {
            System.err.println("closing a connection: " + error);
        }
        selector.wakeup();
    }

    /** Forgets work that somebody has claimed. */
    void done(Work work) {
        waiting.remove(work.id, work);
        worker.queue().release(work.bytes);
    }

    @Override
    public boolean admit(Header header) throws BadFrame {
        if (header.length() > Header.MAX_LENGTH) {
            throw refuse(header, ErrorCode.BAD_FRAME, "a frame of " + header.length() + " bytes is too long");
        }
        if (header.version() != Header.PROTOCOL) {
            throw refuse(header, ErrorCode.UNSUPPORTED, "this worker speaks protocol version " + Header.PROTOCOL);
        }
        if (!greeted && header.type() != FrameType.HELLO.code) {
            throw refuse(header, ErrorCode.BAD_FRAME, "HELLO comes first");
        }
        return worker.queue().reserve(header.length());
    }

    @Override
    public void refused(Header header) {
        send(Answers.error(header.id(), ErrorCode.OVERLOADED, "no memory left for a frame of this size"));
    }

    @Override
    public void frame(Header header, ByteBuffer payload) throws BadFrame {
        FrameType type = FrameType.ofCode(header.type());
        if (type == FrameType.PREDICT) {
            predict(header, payload);
            return;
        }
        worker.queue().release(header.length());
        if (type == null) {
            send(Answers.error(header.id(), ErrorCode.UNSUPPORTED, "no frame has type " + header.type()));
            return;
        }
        switch (type) {
            case HELLO -> {
                read(header, payload);
                greeted = true;
                send(Answers.hello(header.id()));
            }
            case LOAD -> worker.load(this, header.id(), read(header, payload));
            case DESCRIBE -> worker.describe(this, header.id());
            case PING -> ping(header);
            case CANCEL -> cancel(header.id());
            case DRAIN -> worker.drain();
            default -> send(Answers.error(header.id(), ErrorCode.UNSUPPORTED, type + " is not for a worker"));
        }
    }

    private void predict(Header header, ByteBuffer payload) throws BadFrame {
        Work work = Work.predict(this, header, read(header, payload));
        String refusal = worker.refusal();
        if (refusal != null) {
            worker.queue().release(work.bytes);
            send(Answers.error(work.id, ErrorCode.NOT_READY, refusal));
            return;
        }
        waiting.put(work.id, work);
        if (!worker.queue().offer(work)) {
            done(work);
            refusal = worker.refusal();
            send(refusal == null
                    ? Answers.error(work.id, ErrorCode.OVERLOADED, WorkQueue.MAX_WAITING + " predictions wait already")
                    : Answers.error(work.id, ErrorCode.NOT_READY, refusal));
        }
    }

    private void ping(Header header) {
        Work work = Work.ping(this, new Header(0, header.type(), header.version(), header.id(), Header.NO_DEADLINE));
        if (worker.refusal() != null || !worker.queue().offer(work)) {
            send(Answers.pong(header.id(), worker.queue()));
        }
    }

    private void cancel(long id) {
        Work work = waiting.get(id);
        if (work != null && drop(work)) {
            send(Answers.error(id, ErrorCode.CANCELLED, "cancelled before it started"));
        }
    }

    private boolean drop(Work work) {
        if (!work.claim()) {
            return false;
        }
        worker.queue().remove(work);
        worker.queue().cancelled.incrementAndGet();
        done(work);
        return true;
    }

    private Batch read(Header header, ByteBuffer payload) throws BadFrame {
        try {
            return Payload.read(payload);
        } catch (BadFrame error) {
            if (header.type() == FrameType.PREDICT.code) {
                worker.queue().release(header.length());
            }
            throw refuse(header, ErrorCode.BAD_FRAME, error.getMessage());
        }
    }

    private BadFrame refuse(Header header, ErrorCode code, String message) {
        send(Answers.error(header.id(), code, message));
        ending = true;
        return new BadFrame(message);
    }

    private void close() {
        waiting.values().forEach(this::drop);
        Header unfinished = reader.unfinished();
        if (unfinished != null) {
            worker.queue().release(unfinished.length());
        }
        worker.closed(this);
        try {
            channel.close();
            selector.close();
        } catch (IOException error) {
            System.err.println("closing a connection: " + error);
        }
    }
}
