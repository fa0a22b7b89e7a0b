package dev.turnout.worker;

import dev.turnout.spi.Batch;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ClosedChannelException;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;

/** The life of a worker: listen, load once, predict, drain, exit. */
final class Worker {
    private static final long FLUSH_BEFORE_EXIT_MS = 5_000;
    /** Part of the heap that received payloads may take, and that answers may take for one peer. */
    private static final int HEAP_SHARE = 4;

    private final Settings settings;
    private final ModelLoader loader;
    private final WorkQueue queue = new WorkQueue(Runtime.getRuntime().maxMemory() / HEAP_SHARE);
    private final Set<Connection> connections = ConcurrentHashMap.newKeySet();
    private final AtomicBoolean loadAsked = new AtomicBoolean();
    private final AtomicBoolean draining = new AtomicBoolean();
    private final AtomicInteger threads = new AtomicInteger();
    private volatile Description description;
    private volatile ServedModel model;
    private ServerSocketChannel listener;

    Worker(Settings settings, ModelLoader loader) {
        this.settings = settings;
        this.loader = loader;
    }

    /** Listens, and accepts connections until the worker drains. */
    void serve() throws IOException {
        Files.deleteIfExists(settings.socket());
        listener = ServerSocketChannel.open(StandardProtocolFamily.UNIX);
        listener.bind(UnixDomainSocketAddress.of(settings.socket()));
        try {
            while (true) {
                Connection connection = new Connection(this, listener.accept());
                connections.add(connection);
                start("connection", connection);
            }
        } catch (ClosedChannelException error) {
            // drain closes the listener; its own thread ends the process.
        }
    }

    WorkQueue queue() {
        return queue;
    }

    long byteBudget() {
        return Runtime.getRuntime().maxMemory() / HEAP_SHARE;
    }

    /** Why no prediction is taken now; null when it is. */
    String refusal() {
        if (description == null) {
            return "the model is not loaded";
        }
        return draining.get() ? "the worker is draining" : null;
    }

    void load(Connection connection, long id, Batch payload) {
        if (!loadAsked.compareAndSet(false, true)) {
            connection.send(Answers.error(id, ErrorCode.UNSUPPORTED, "LOAD comes once"));
            return;
        }
        start("load", () -> {
            ByteBuffer answer;
            try {
                answer = loaded(id, loader.load(LoadRequest.read(payload, settings)));
            } catch (LoadFailed error) {
                fail(connection, id, error.getMessage());
                return;
            } catch (Throwable error) {
                // Whatever a model throws while it loads is the reason why it cannot be served.
                error.printStackTrace();
                fail(connection, id, Reasons.of(error));
                return;
            }
            connection.send(answer);
        });
    }

    void describe(Connection connection, long id) {
        Description known = description;
        connection.send(
                known == null
                        ? Answers.error(id, ErrorCode.NOT_READY, refusal())
                        : Payload.frame(FrameType.LOADED, id, known.payload()));
    }

    /** Finishes what waits, then exits. */
    void drain() {
        if (!draining.compareAndSet(false, true)) {
            return;
        }
        queue.close();
        if (threads.get() == 0) {
            start("exit", () -> exit(0));
        }
    }

    void closed(Connection connection) {
        connections.remove(connection);
    }

    /** A model thread has answered its last. */
    void threadEnded() {
        if (threads.decrementAndGet() == 0) {
            exit(0);
        }
    }

    private ByteBuffer loaded(long id, ServedModel served) throws Exception {
        Description known = served.description();
        ByteBuffer answer = Payload.frame(FrameType.LOADED, id, known.payload());
        InputCheck check = new InputCheck(known);
        model = served;
        threads.set(settings.threads());
        for (int at = 0; at < settings.threads(); at++) {
            start("model-" + at, new ModelThread(this, served.runner(), check));
        }
        description = known;
        return answer;
    }

    private void fail(Connection connection, long id, String reason) {
        connection.send(Answers.error(id, ErrorCode.LOAD_FAILED, reason));
        exit(1);
    }

    private void exit(int status) {
        Thread.currentThread().setName("exit");
        start("exit-limit", () -> {
            Main.sleep(2 * FLUSH_BEFORE_EXIT_MS);
            Main.halt(status);
        });
        awaitFlushed();
        try {
            listener.close();
            Files.deleteIfExists(settings.socket());
            connections.forEach(Connection::disconnect);
            if (model != null) {
                model.close();
            }
        } catch (Exception error) {
            System.err.println("leaving: " + Reasons.of(error));
        }
        Main.halt(status);
    }

    private void awaitFlushed() {
        long until = System.nanoTime() + FLUSH_BEFORE_EXIT_MS * 1_000_000;
        while (System.nanoTime() - until < 0 && !connections.stream().allMatch(Connection::flushed)) {
            Main.sleep(1);
        }
    }

    private static void start(String name, Runnable task) {
        Thread thread = new Thread(task, "turnout-" + name);
        thread.setDaemon(true);
        thread.start();
    }
}
