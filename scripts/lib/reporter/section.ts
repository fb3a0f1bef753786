import { EXIT, Failure } from '../failure.ts'
import type { Loaded } from '../settled.ts'

/** A service's section once its key has been read. */
export type Section<T> = T & { key: string }

/** @throws Failure 78 if the configuration has no such section */
export function sectionOf<N extends 'threatjammer' | 'abuseipdb'>(loaded: Loaded, name: N) {
  const section = loaded.config[name]
  if (!section?.key) throw new Failure(EXIT.config, `${loaded.path}: missing key "${name}"`)
  return { ...section, key: section.key }
}
