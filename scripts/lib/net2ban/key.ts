import { hkdfSync, pbkdf2, webcrypto } from 'node:crypto'
import { promisify } from 'node:util'

/** A key that messages are sealed with; its bytes cannot be read back. */
export type SealKey = webcrypto.CryptoKey

/** What two parties share. */
export interface Shared {
  key: string
  secret: string
  authkey: string
  rounds: number
}

/**
 * PBKDF2-HMAC-SHA256(key, salt = secret LF authkey, rounds, 32 bytes), off the main thread: 2 ms for
 * 12,000 rounds (measured), so once in a process.
 *
 * @returns the key for messages, and the broker password of whoever was given none: HKDF (RFC 5869)
 *   of the same bytes under another label, so that the broker, which learns it, learns nothing else
 */
export async function deriveKey(shared: Shared): Promise<{ key: SealKey; password: string }> {
  const salt = `${shared.secret}\n${shared.authkey}`
  const bytes = await promisify(pbkdf2)(shared.key, salt, shared.rounds, 32, 'sha256')
  const uses: webcrypto.KeyUsage[] = ['encrypt', 'decrypt']
  const key = await webcrypto.subtle.importKey('raw', bytes, 'AES-GCM', false, uses)
  const password = Buffer.from(hkdfSync('sha256', bytes, '', 'net2ban broker login', 20))
  return { key, password: password.toString('hex') }
}
