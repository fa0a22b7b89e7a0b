/**
 * The worker process: a socket, frames, a bounded queue and model threads. It serves one model version and knows
 * nothing of what kind of model that is beyond {@link dev.turnout.worker.ServedModel}.
 *
 * <p>The protocol is written down in {@code docs/worker-protocol.md}.
 */
package dev.turnout.worker;
