package dev.turnout.worker;

import java.util.ArrayDeque;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * What waits for the model threads, PINGs first, else in order of arrival; bounded in number and in bytes, with the
 * counters of PONG.
 */
final class WorkQueue {
    static final int MAX_WAITING = 4096;

    final AtomicLong started = new AtomicLong();
    final AtomicLong cancelled = new AtomicLong();
    final AtomicLong expired = new AtomicLong();

    private final long maxBytes;
    private final AtomicLong bytes = new AtomicLong();
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition filled = lock.newCondition();
    private final ArrayDeque<Work> waiting = new ArrayDeque<>();
    private boolean closed;

    /** `maxBytes`: received payloads that may be held at once, waiting or running. */
    WorkQueue(long maxBytes) {
        this.maxBytes = maxBytes;
    }

    /** Takes bytes from the budget; false when they are not there. */
    boolean reserve(long count) {
        if (bytes.addAndGet(count) <= maxBytes) {
            return true;
        }
        bytes.addAndGet(-count);
        return false;
    }

    /** Gives bytes back. */
    void release(long count) {
        bytes.addAndGet(-count);
    }

    /** Takes a piece of work; false when too much waits already, or nothing more is taken. PINGs always find room. */
    boolean offer(Work work) {
        lock.lock();
        try {
            if (closed || (waiting.size() >= MAX_WAITING && !work.isPing())) {
                return false;
            }
            if (work.isPing()) {
                waiting.addFirst(work);
            } else {
                waiting.addLast(work);
            }
            filled.signal();
            return true;
        } finally {
            lock.unlock();
        }
    }

    /** Waits for the next piece of work; null once the queue is closed and empty. */
    Work take() throws InterruptedException {
        lock.lock();
        try {
            while (waiting.isEmpty()) {
                if (closed) {
                    return null;
                }
                filled.await();
            }
            return waiting.poll();
        } finally {
            lock.unlock();
        }
    }

    /** Takes out what was claimed by somebody else. */
    void remove(Work work) {
        lock.lock();
        try {
            waiting.remove(work);
        } finally {
            lock.unlock();
        }
    }

    /** Takes nothing more; {@link #take} still hands out what waits. */
    void close() {
        lock.lock();
        try {
            closed = true;
            filled.signalAll();
        } finally {
            lock.unlock();
        }
    }

    int size() {
        lock.lock();
        try {
            return waiting.size();
        } finally {
            lock.unlock();
        }
    }
}
