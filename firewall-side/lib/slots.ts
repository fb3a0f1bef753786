import { EXIT, Failure } from '../../scripts/lib/failure.ts'
import { tryLock } from '../../scripts/lib/lock.ts'

/** As many as sshd lets through one connection, which is all that a server of ours ever opens. */
export const SESSIONS = 10

/**
 * Takes one of an owner's sessions on this firewall, until this process ends, however it does. Each
 * is a process of root's that may stay for days: whoever has stolen a key cannot fill the memory.
 *
 * @param run the directory for what lasts until the next boot
 * @throws Failure 75 if all are in use
 */
export async function takeSession(run: string, owner: string): Promise<void> {
  for (let n = 0; n < SESSIONS; n++) {
    if (await tryLock(`${run}/firewall.session.${owner}.${n}`)) return
  }
  throw new Failure(
    EXIT.temporary,
    `${SESSIONS} sessions of "${owner}" are open: end one of them first`,
  )
}
