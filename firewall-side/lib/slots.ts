import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { tryLock } from '../../scripts/lib/lock.ts'

/** Ten go through one connection of sshd's; a server that connects anew needs a few more. */
export const SESSIONS = 40

/**
 * Takes one of an owner's sessions on this firewall, until this process ends, however it does. Each
 * is a process of root's that may stay for days: whoever has stolen a key cannot fill the memory.
 *
 * @param run the directory for what lasts until the next boot
 * @throws Failure 75 if all are in use
 */
export async function takeSession(run: string, owner: string): Promise<void> {
  // From anywhere, so that those who come side by side do not all try the same ones.
  const first = Math.floor(Math.random() * SESSIONS)
  for (let i = 0; i < SESSIONS; i++) {
    const n = (first + i) % SESSIONS
    if (await tryLock(`${run}/firewall.session.${owner}.${n}`)) return
  }
  throw new Failure(
    EXIT.temporary,
    `${SESSIONS} sessions of "${owner}" are open: end one of them first`,
  )
}
