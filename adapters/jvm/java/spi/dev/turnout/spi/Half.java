package dev.turnout.spi;

/** The two 16-bit floats; the JDK converts neither before Java 20. */
final class Half {
    private static final int FP16_FRACTION_BITS = 10;
    private static final int FP32_FRACTION_BITS = 23;
    private static final int SHIFT = FP32_FRACTION_BITS - FP16_FRACTION_BITS;
    private static final int BIAS_GAP = 127 - 15;

    private Half() {}

    static float fromFp16(short bits) {
        int sign = (bits & 0x8000) << 16;
        int exponent = (bits >> FP16_FRACTION_BITS) & 0x1F;
        int fraction = bits & 0x3FF;
        if (exponent == 0) {
            float magnitude = fraction * 0x1p-24f;
            return sign == 0 ? magnitude : -magnitude;
        }
        int wide = exponent == 0x1F ? 0xFF : exponent + BIAS_GAP;
        return Float.intBitsToFloat(sign | (wide << FP32_FRACTION_BITS) | (fraction << SHIFT));
    }

    /** Rounds to nearest, ties to even. */
    static short toFp16(float value) {
        int bits = Float.floatToRawIntBits(value);
        int sign = (bits >>> 16) & 0x8000;
        float magnitude = Math.abs(value);
        if (Float.isNaN(value)) {
            return (short) (sign | 0x7E00 | ((bits >> SHIFT) & 0x1FF));
        }
        if (magnitude >= 65520f) {
            return (short) (sign | 0x7C00);
        }
        if (magnitude < 0x1p-14f) {
            return (short) (sign | (int) Math.rint(magnitude * 0x1p24));
        }
        int rebased = (bits & 0x7FFFFFFF) - (BIAS_GAP << FP32_FRACTION_BITS);
        int odd = (rebased >> SHIFT) & 1;
        return (short) (sign | ((rebased + (1 << (SHIFT - 1)) - 1 + odd) >> SHIFT));
    }

    static float fromBf16(short bits) {
        return Float.intBitsToFloat(bits << 16);
    }

    /** Rounds to nearest, ties to even. */
    static short toBf16(float value) {
        int bits = Float.floatToRawIntBits(value);
        if (Float.isNaN(value)) {
            return (short) ((bits >>> 16) | 0x40);
        }
        return (short) ((bits + 0x7FFF + ((bits >>> 16) & 1)) >>> 16);
    }
}
