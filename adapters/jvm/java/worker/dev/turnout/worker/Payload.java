package dev.turnout.worker;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.Tensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** Tensors to bytes and back, as every payload carries them. */
final class Payload {
    private static final int MAX_RANK = 32;
    /** Bytes of a tensor's fixed parts: name length, datatype, rank, data length. */
    private static final int TENSOR_FIXED = Short.BYTES + 2 + Long.BYTES;

    private Payload() {}

    /** Reads a payload; the tensors are views of `body`. */
    static Batch read(ByteBuffer body) throws BadFrame {
        try {
            int count = body.getInt();
            if (count < 0 || (long) count * TENSOR_FIXED > body.remaining()) {
                throw new BadFrame(Integer.toUnsignedString(count) + " tensors do not fit the frame");
            }
            Map<String, Tensor> tensors = new LinkedHashMap<>(count * 2);
            for (int at = 0; at < count; at++) {
                readTensor(body, tensors);
            }
            if (body.hasRemaining()) {
                throw new BadFrame(body.remaining() + " bytes are left over");
            }
            return new Batch(tensors);
        } catch (java.nio.BufferUnderflowException error) {
            throw new BadFrame("the tensors end after the frame");
        }
    }

    private static void readTensor(ByteBuffer body, Map<String, Tensor> into) throws BadFrame {
        String name = readName(body);
        int code = Byte.toUnsignedInt(body.get());
        Datatype datatype = Datatype.ofCode(code);
        if (datatype == null) {
            throw new BadFrame("tensor '" + name + "': no datatype has code " + code);
        }
        int rank = Byte.toUnsignedInt(body.get());
        if (rank > MAX_RANK) {
            throw new BadFrame("tensor '" + name + "': rank " + rank + " is over " + MAX_RANK);
        }
        long[] shape = new long[rank];
        for (int axis = 0; axis < rank; axis++) {
            shape[axis] = body.getLong();
        }
        long length = body.getLong();
        if (length < 0 || length > body.remaining()) {
            throw new BadFrame("tensor '" + name + "': its data ends after the frame");
        }
        ByteBuffer data = body.slice(body.position(), (int) length);
        body.position(body.position() + (int) length);
        try {
            if (into.put(name, Tensor.view(datatype, shape, data)) != null) {
                throw new BadFrame("tensor '" + name + "' comes twice");
            }
        } catch (IllegalArgumentException error) {
            throw new BadFrame("tensor '" + name + "': " + error.getMessage());
        }
    }

    private static String readName(ByteBuffer body) throws BadFrame {
        int length = Short.toUnsignedInt(body.getShort());
        if (length > body.remaining()) {
            throw new BadFrame("a name ends after the frame");
        }
        ByteBuffer bytes = body.slice(body.position(), length);
        body.position(body.position() + length);
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(bytes).toString();
        } catch (CharacterCodingException error) {
            throw new BadFrame("a name is not UTF-8");
        }
    }

    /**
     * Writes a whole frame.
     *
     * @throws IllegalStateException when it would be longer than a frame may be
     */
    static ByteBuffer frame(FrameType type, long id, Batch tensors) {
        byte[][] names = new byte[tensors.tensors().size()][];
        long length = Integer.BYTES;
        int at = 0;
        for (Map.Entry<String, Tensor> entry : tensors.tensors().entrySet()) {
            names[at] = entry.getKey().getBytes(StandardCharsets.UTF_8);
            Tensor tensor = entry.getValue();
            length += TENSOR_FIXED + names[at++].length + (long) tensor.rank() * Long.BYTES + tensor.bytes();
        }
        if (length > Header.MAX_LENGTH) {
            throw new IllegalStateException("the answer takes " + length + " bytes, a frame holds "
                    + Header.MAX_LENGTH);
        }
        ByteBuffer frame = ByteBuffer.allocate(Header.BYTES + (int) length).order(ByteOrder.LITTLE_ENDIAN);
        Header.write(frame, (int) length, type, id);
        frame.putInt(names.length);
        at = 0;
        for (Tensor tensor : tensors.tensors().values()) {
            writeTensor(frame, names[at++], tensor);
        }
        return frame.flip();
    }

    private static void writeTensor(ByteBuffer frame, byte[] name, Tensor tensor) {
        frame.putShort((short) name.length).put(name);
        frame.put((byte) tensor.datatype().code()).put((byte) tensor.rank());
        for (int axis = 0; axis < tensor.rank(); axis++) {
            frame.putLong(tensor.axis(axis));
        }
        frame.putLong(tensor.bytes()).put(tensor.data());
    }
}
