/** How an answer can be lost: the connection resets, hangs, is cut, or HTTP says no. */
export type Mishap = 'reset' | 'hang' | 'cut' | '401' | '403' | '429' | '500' | '503'

/** The switches of the simulator; facts/sophos.md section 10 numbers the quirks. */
export interface Faults {
  /** Requests that are served well before the faults begin, and how many then suffer. */
  skip: number
  times: number
  /** Each connection is closed before TLS begins. */
  resetConnections: boolean
  /** Goes wrong before (3) or after (5) the request is carried out. */
  refuseBefore?: Mishap
  refuseAfter?: Mishap
  /** `Retry-After` of such an answer. */
  retryAfter?: string
  /** What happens to the body: cut, empty, bytes in front, an attribute twice (3). */
  mangle(xml: string): string
  apiOff: boolean
  ipRefused: boolean
  loginRefused: boolean
  /** 535, or 500 as the alternative (9). */
  noRights?: '535' | '500'
  zeroRecords: 'no' | 'number' | '526'
  unknownGroup: '501' | '500'
  sameAddress: 'accepted' | '503'
  updateMissing: '526' | '500' | '200'
  removeReferenced: '504' | '510' | '500'
  removeMissing: '526' | '200' | 'text'
  /** A write is answered so, whatever became of it (31); `none`: no Status at all. */
  writeStatus?: '216' | '217' | 'none' | 'zero'
  /** A write is answered so and nothing is changed (31). */
  writeIgnored?: '201' | '500' | '501' | '504' | '528' | '529' | '599' | 'text'
  /** Only the objects whose name holds this suffer from `writeIgnored`. */
  only: string
  /** Filters are ignored, as unsupported ones are (14). */
  ignoreFilter: boolean
  apiVersions: string[]
  /** Several verbs in one request are not understood, instead of done in order (30). */
  oneVerbOnly: boolean
}

export const NO_FAULTS: Faults = {
  skip: 0,
  times: Number.POSITIVE_INFINITY,
  resetConnections: false,
  mangle: (xml) => xml,
  apiOff: false,
  ipRefused: false,
  loginRefused: false,
  zeroRecords: 'no',
  unknownGroup: '501',
  sameAddress: 'accepted',
  updateMissing: '526',
  removeReferenced: '504',
  removeMissing: '526',
  only: '',
  ignoreFilter: false,
  apiVersions: ['2200.1', '2100.1'],
  oneVerbOnly: false,
}
