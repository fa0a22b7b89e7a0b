package com.acme;

import dev.turnout.spi.Batch;
import dev.turnout.spi.Datatype;
import dev.turnout.spi.InvalidInput;
import dev.turnout.spi.Model;
import dev.turnout.spi.Tensor;
import dev.turnout.spi.TensorSpec;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;

/** Does what each text asks, and answers with text. */
public final class Moody implements Model {
    private final AtomicInteger calls = new AtomicInteger();
    private Path directory;

    @Override
    public void load(Path folder, Map<String, String> options) throws Exception {
        System.out.println("noise on standard output while loading");
        directory = folder;
        if (options.containsKey("refuse")) {
            throw new IllegalStateException("weights are\nmissing");
        }
    }

    @Override
    public List<TensorSpec> inputs() {
        return List.of(TensorSpec.of("do", Datatype.BYTES, -1));
    }

    @Override
    public List<TensorSpec> outputs() {
        return List.of(TensorSpec.of("done", Datatype.BYTES, -1));
    }

    @Override
    public Batch predict(Batch batch) throws Exception {
        calls.incrementAndGet();
        Tensor asked = batch.get("do");
        String[] answers = new String[asked.size()];
        for (int at = 0; at < answers.length; at++) {
            String[] words = asked.textAt(at).split(":", 2);
            answers[at] = act(words[0], words.length > 1 ? words[1] : "");
        }
        return Batch.of("done", Tensor.ofText(answers));
    }

    private String act(String verb, String what) throws Exception {
        switch (verb) {
            case "hold":
                // Holds the model thread until the test makes the file.
                while (!Files.exists(directory.resolve(what))) {
                    Thread.sleep(1);
                }
                return "held";
            case "throw":
                throw new IllegalArgumentException(what);
            case "invalid":
                throw new InvalidInput("tensor 'do': row 0: " + what);
            case "overflow":
                return act(verb, what);
            case "error":
                throw new Error(what);
            case "print":
                System.out.println(what.repeat(1000));
                return "printed";
            case "exit":
                Runtime.getRuntime().halt(7);
                return "";
            case "memory":
                return Integer.toString(new long[Integer.MAX_VALUE / 2].length);
            case "sees":
                return sees(what);
            case "calls":
                return Integer.toString(calls.get());
            case "long":
                return "x".repeat(Integer.parseInt(what));
            default:
                return verb;
        }
    }

    private static String sees(String name) {
        try {
            Class.forName(name);
            return "yes";
        } catch (ClassNotFoundException error) {
            return "no";
        }
    }
}
