package dev.turnout.worker;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.Tensor;
import java.nio.ByteBuffer;

/** Frames that a worker sends. */
final class Answers {
    private static final int MAX_MESSAGE_CHARS = 4000;

    private Answers() {}

    static ByteBuffer hello(long id) {
        Tensor name = Tensor.ofText(new String[] {"turnout-jvm " + Main.VERSION});
        return Payload.frame(FrameType.HELLO, id, Batch.of("worker", name));
    }

    /** The message is cut to one line of bounded length. */
    static ByteBuffer error(long id, ErrorCode code, String message) {
        String line = message == null ? "" : message.replaceAll("\\s*[\\r\\n]+\\s*", " ");
        if (line.length() > MAX_MESSAGE_CHARS) {
            line = line.substring(0, MAX_MESSAGE_CHARS) + " …";
        }
        Batch payload = Batch.of("code", Tensor.ofText(new String[] {code.wire()}))
                .and("message", Tensor.ofText(new String[] {line}));
        return Payload.frame(FrameType.ERROR, id, payload);
    }

    static ByteBuffer pong(long id, WorkQueue queue) {
        Batch counters = Batch.of("started", counter(queue.started.get()))
                .and("cancelled", counter(queue.cancelled.get()))
                .and("expired", counter(queue.expired.get()))
                .and("queued", counter(queue.size()));
        return Payload.frame(FrameType.PONG, id, counters);
    }

    private static Tensor counter(long value) {
        return Tensor.ofLongs(Datatype.INT64, new long[] {value});
    }
}
