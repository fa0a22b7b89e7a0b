package dev.turnout.spi;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * A datatype, a shape and the elements, row-major, as a view over little-endian bytes.
 *
 * <p>A tensor that a model was given is valid until its {@code predict} returns. BYTES elements lie each behind a
 * 4-byte length; the length 0xFFFFFFFF marks a missing one.
 */
public final class Tensor {
    private static final int MISSING = 0xFFFFFFFF;

    private final Datatype datatype;
    private final long[] shape;
    private final int size;
    private final ByteBuffer data;
    private final int[] starts;

    private Tensor(Datatype datatype, long[] shape, int size, ByteBuffer data) {
        this.datatype = datatype;
        this.shape = shape;
        this.size = size;
        this.data = data;
        this.starts = datatype == Datatype.BYTES ? starts(data, size) : null;
    }

    /**
     * Views raw bytes, from the buffer's position to its limit, as a tensor.
     *
     * @throws IllegalArgumentException when size or content do not fit datatype and shape
     */
    public static Tensor view(Datatype datatype, long[] shape, ByteBuffer data) {
        int size = size(shape);
        ByteBuffer bytes = data.slice().order(ByteOrder.LITTLE_ENDIAN);
        int width = datatype.width();
        if (width > 0 && bytes.remaining() != (long) size * width) {
            throw new IllegalArgumentException(
                    datatype + " of shape " + Arrays.toString(shape) + " takes " + (long) size * width + " bytes, got "
                            + bytes.remaining());
        }
        if (datatype == Datatype.BOOL) {
            checkFlags(bytes);
        }
        return new Tensor(datatype, shape.clone(), size, bytes);
    }

    /** FP64. Without a shape it is that of the array. */
    public static Tensor ofDoubles(double[] values, long... shape) {
        ByteBuffer data = room((long) values.length * Double.BYTES);
        data.asDoubleBuffer().put(values);
        return made(Datatype.FP64, values.length, shape, data);
    }

    /** FP32. Without a shape it is that of the array. */
    public static Tensor ofFloats(float[] values, long... shape) {
        ByteBuffer data = room((long) values.length * Float.BYTES);
        data.asFloatBuffer().put(values);
        return made(Datatype.FP32, values.length, shape, data);
    }

    /** FP16 or BF16, rounded to nearest. Without a shape it is that of the array. */
    public static Tensor ofHalves(Datatype datatype, float[] values, long... shape) {
        if (datatype != Datatype.FP16 && datatype != Datatype.BF16) {
            throw new IllegalArgumentException(datatype + " is no 16-bit float");
        }
        ByteBuffer data = room((long) values.length * Short.BYTES);
        for (float value : values) {
            data.putShort(datatype == Datatype.FP16 ? Half.toFp16(value) : Half.toBf16(value));
        }
        return made(datatype, values.length, shape, data.flip());
    }

    /**
     * Any integer datatype; UINT64 takes the 64 bits as they are. Without a shape it is that of the array.
     *
     * @throws IllegalArgumentException when a value does not fit the datatype
     */
    public static Tensor ofLongs(Datatype datatype, long[] values, long... shape) {
        if (!datatype.isInteger()) {
            throw new IllegalArgumentException(datatype + " is no integer");
        }
        ByteBuffer data = room((long) values.length * datatype.width());
        for (long value : values) {
            putLong(data, datatype, value);
        }
        return made(datatype, values.length, shape, data.flip());
    }

    /** BOOL. Without a shape it is that of the array. */
    public static Tensor ofBooleans(boolean[] values, long... shape) {
        ByteBuffer data = room(values.length);
        for (boolean value : values) {
            data.put((byte) (value ? 1 : 0));
        }
        return made(Datatype.BOOL, values.length, shape, data.flip());
    }

    /** BYTES; null is a missing element. Without a shape it is that of the array. */
    public static Tensor ofBytes(byte[][] values, long... shape) {
        long bytes = 0;
        for (byte[] value : values) {
            bytes += Integer.BYTES + (value == null ? 0 : value.length);
        }
        ByteBuffer data = room(bytes);
        for (byte[] value : values) {
            data.putInt(value == null ? MISSING : value.length);
            if (value != null) {
                data.put(value);
            }
        }
        return made(Datatype.BYTES, values.length, shape, data.flip());
    }

    /** BYTES from text in UTF-8; null is a missing element. Without a shape it is that of the array. */
    public static Tensor ofText(String[] values, long... shape) {
        byte[][] encoded = new byte[values.length][];
        for (int at = 0; at < values.length; at++) {
            encoded[at] = values[at] == null ? null : values[at].getBytes(StandardCharsets.UTF_8);
        }
        return ofBytes(encoded, shape);
    }

    public Datatype datatype() {
        return datatype;
    }

    public long[] shape() {
        return shape.clone();
    }

    public int rank() {
        return shape.length;
    }

    /** Length of one axis. */
    public long axis(int axis) {
        return shape[axis];
    }

    /** Number of elements. */
    public int size() {
        return size;
    }

    /** Length of axis 0; 1 for a scalar. */
    public int rows() {
        return shape.length == 0 ? 1 : Math.toIntExact(shape[0]);
    }

    /** The raw little-endian bytes, as a view with a position of its own. */
    public ByteBuffer data() {
        return data.asReadOnlyBuffer().order(ByteOrder.LITTLE_ENDIAN);
    }

    /** Bytes of the raw form. */
    public int bytes() {
        return data.limit();
    }

    /** Returns the same elements under another shape of equal size. */
    public Tensor reshaped(long... other) {
        if (size(other) != size) {
            throw new IllegalArgumentException(Arrays.toString(other) + " does not hold " + size + " elements");
        }
        return new Tensor(datatype, other.clone(), size, data);
    }

    /** Returns one row, as a tensor of one row. */
    public Tensor row(int row) {
        long[] one = shape.clone();
        one[0] = 1;
        int width = size / rows();
        int from = starts == null ? row * width * datatype.width() : starts[row * width];
        int next = (row + 1) * width;
        int to = starts == null ? next * datatype.width() : next < size ? starts[next] : data.limit();
        return new Tensor(datatype, one, width, data.slice(from, to - from).order(ByteOrder.LITTLE_ENDIAN));
    }

    /** An element of any of the four floating-point datatypes. */
    public double doubleAt(int index) {
        return switch (datatype) {
            case FP64 -> data.getDouble(index << 3);
            case FP32 -> data.getFloat(index << 2);
            case FP16 -> Half.fromFp16(data.getShort(index << 1));
            case BF16 -> Half.fromBf16(data.getShort(index << 1));
            default -> throw new IllegalStateException(datatype + " is no float");
        };
    }

    /** An element of any integer datatype; of UINT64 the 64 bits as they are. */
    public long longAt(int index) {
        return switch (datatype) {
            case INT64, UINT64 -> data.getLong(index << 3);
            case INT32 -> data.getInt(index << 2);
            case UINT32 -> Integer.toUnsignedLong(data.getInt(index << 2));
            case INT16 -> data.getShort(index << 1);
            case UINT16 -> Short.toUnsignedLong(data.getShort(index << 1));
            case INT8 -> data.get(index);
            case UINT8 -> Byte.toUnsignedLong(data.get(index));
            default -> throw new IllegalStateException(datatype + " is no integer");
        };
    }

    /** An element of BOOL. */
    public boolean booleanAt(int index) {
        if (datatype != Datatype.BOOL) {
            throw new IllegalStateException(datatype + " is not BOOL");
        }
        return data.get(index) != 0;
    }

    /** An element of BYTES; null when it is missing. */
    public byte[] bytesAt(int index) {
        if (isMissing(index)) {
            return null;
        }
        byte[] element = new byte[data.getInt(starts[index])];
        data.get(starts[index] + Integer.BYTES, element);
        return element;
    }

    /** Whether an element of BYTES is missing. */
    public boolean isMissing(int index) {
        if (starts == null) {
            throw new IllegalStateException(datatype + " is not BYTES");
        }
        return data.getInt(starts[index]) == MISSING;
    }

    /**
     * An element of BYTES as text; null when it is missing.
     *
     * @throws InvalidInput when it is not UTF-8, naming the element
     */
    public String textAt(int index) {
        byte[] element = bytesAt(index);
        if (element == null) {
            return null;
        }
        try {
            return StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(element)).toString();
        } catch (CharacterCodingException error) {
            throw new InvalidInput("element " + index + " is not UTF-8");
        }
    }

    /** All elements of a floating-point tensor. */
    public double[] doubles() {
        double[] values = new double[size];
        for (int at = 0; at < size; at++) {
            values[at] = doubleAt(at);
        }
        return values;
    }

    /** All elements of an integer tensor. */
    public long[] longs() {
        long[] values = new long[size];
        for (int at = 0; at < size; at++) {
            values[at] = longAt(at);
        }
        return values;
    }

    /** Datatype and shape; never the values, which may be private. */
    @Override
    public String toString() {
        return datatype + " " + Arrays.toString(shape);
    }

    private static Tensor made(Datatype datatype, int length, long[] shape, ByteBuffer data) {
        long[] axes = shape.length == 0 ? new long[] {length} : shape.clone();
        if (size(axes) != length) {
            throw new IllegalArgumentException(Arrays.toString(axes) + " does not hold " + length + " elements");
        }
        return new Tensor(datatype, axes, length, data);
    }

    private static ByteBuffer room(long bytes) {
        return ByteBuffer.allocate(Math.toIntExact(bytes)).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static int size(long[] shape) {
        long size = 1;
        for (long axis : shape) {
            if (axis < 0) {
                throw new IllegalArgumentException("negative axis in shape " + Arrays.toString(shape));
            }
            if (axis == 0) {
                return 0;
            }
        }
        for (long axis : shape) {
            if (axis > Integer.MAX_VALUE || (size *= axis) > Integer.MAX_VALUE) {
                throw new IllegalArgumentException("too many elements in shape " + Arrays.toString(shape));
            }
        }
        return (int) size;
    }

    private static void checkFlags(ByteBuffer bytes) {
        for (int at = 0; at < bytes.limit(); at++) {
            if ((bytes.get(at) & 0xFE) != 0) {
                throw new IllegalArgumentException("BOOL bytes must be 0 or 1");
            }
        }
    }

    private static int[] starts(ByteBuffer data, int size) {
        if ((long) size * Integer.BYTES > data.limit()) {
            throw new IllegalArgumentException(size + " BYTES elements do not fit " + data.limit() + " bytes");
        }
        int[] starts = new int[size];
        long at = 0;
        for (int index = 0; index < size; index++) {
            if (at + Integer.BYTES > data.limit()) {
                throw new IllegalArgumentException("the bytes end before BYTES element " + index);
            }
            starts[index] = (int) at;
            int length = data.getInt((int) at);
            at += Integer.BYTES + (length == MISSING ? 0 : Integer.toUnsignedLong(length));
        }
        if (at != data.limit()) {
            throw new IllegalArgumentException("BYTES elements end at " + at + " of " + data.limit() + " bytes");
        }
        return starts;
    }

    private static void putLong(ByteBuffer data, Datatype datatype, long value) {
        boolean fits = switch (datatype) {
            case INT64, UINT64 -> true;
            case INT32 -> value == (int) value;
            case INT16 -> value == (short) value;
            case INT8 -> value == (byte) value;
            default -> value >= 0 && value < 1L << (8 * datatype.width());
        };
        if (!fits) {
            throw new IllegalArgumentException(value + " does not fit " + datatype);
        }
        switch (datatype.width()) {
            case 1 -> data.put((byte) value);
            case 2 -> data.putShort((short) value);
            case 4 -> data.putInt((int) value);
            default -> data.putLong(value);
        }
    }
}
